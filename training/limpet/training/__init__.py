"""Training of limpet's encoders, on a workstation; needs the extra `training`.

    fit         the training loop: seeded steps, checkpoints, resumption
    progress    a bar on a terminal, plain lines elsewhere
    run         a RUN folder and its record, what `limpet export` starts from
    settings    configuration files
    threads     how many PyTorch takes
    anomaly/    streaming anomaly encoder
    commands/   `limpet train`

`run`, `settings`, and `anomaly`'s config, volumes, judged and evaluation load without torch.
"""
