"""Training of limpet's encoders, on a workstation; needs the extra `training`.

    fit         the training loop: seeded steps, mixed precision, orderly interruption
    checkpoint  all that a step changes, saved and restored
    metrics_log JSON lines and TensorBoard events
    distributed several processes that train as one: shard, gather, averaged gradients
    ranks       which of torchrun's processes this one is
    progress    a bar on a terminal, plain lines elsewhere
    run         a RUN folder and its record, what `limpet export` starts from
    settings    configuration files
    threads     how many PyTorch takes
    anomaly/    streaming anomaly encoder
    commands/   `limpet train`

`ranks`, `progress`, `run`, `settings`, and `anomaly`'s config, volumes, judged and evaluation load
without torch.
"""
