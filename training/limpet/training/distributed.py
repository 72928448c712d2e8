"""Several processes that train one model as a single process would, started by `torchrun`.

One rule connects `fit` with an objective: **a step descends the mean, over the ranks, of the losses
that they return**. `gather` passes gradients back to the rank that a row came from, so the rule
holds as well where a loss compares rows of several ranks:

    def loss_of_step(step, rng):
        anchors, positives, negatives = draw(rng)  # the global batch, the same on every rank
        own = shard(len(anchors))  # this rank's rows of it
        z_anchors, z_positives = encoder(anchors[own]), encoder(positives[own])
        z_negatives = gather(encoder(negatives[own]))  # all rows of the global batch
        return contrast(z_anchors, z_positives, z_negatives, temperature)

Why this is the single process's step, for R ranks: shards are equal, so the loss L of the global
batch is the mean of the ranks' losses L_q. The backward pass of `gather` adds up what all L_q say
of a rank's rows z_r, and that rank's parameters get the gradient (Σ_q ∂L_q/∂z_r) ∂z_r/∂θ, beside
what its own loss says of the rows that it did not gather. Summed over the ranks this is
∂(Σ_q L_q)/∂θ; `average_gradients` divides by R, which gives ∂L/∂θ. If `gather` averaged, gathered
rows would count R times too little; if it cut the gradient, nothing would push negatives away. The
rule also covers a rank that gathers all rows and returns the whole loss: then L_q = L.

Without torchrun everything here is the identity. The ranks take the same path: each call meets the
same call on every other rank. Where rows of an encoder depend on one another (batch normalisation)
or it draws random numbers (dropout), ranks do train, but not to the weights of a single process;
other encoders agree with it to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from limpet.contracts.errors import UsageError
from limpet.training.ranks import leads, local_rank, rank, world


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Connects the processes that torchrun started: gloo between CPUs, NCCL between GPUs.

    Within it `cuda` means this rank's own GPU, so a model goes to the GPU inside. Does nothing in
    a single process, nor within a group that is there already.

    Raises:
        UsageError: There is a group, but torchrun did not make it.
    """
    if dist.is_initialized() and dist.get_world_size() != world():
        raise UsageError(
            f"found {dist.get_world_size()} connected processes, torchrun started {world()}",
            "start them with: torchrun --nproc-per-node N PROGRAM",
        )
    if world() == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available() and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_device(device: torch.device) -> None:
    """Makes sure that no two ranks share a GPU.

    Raises:
        UsageError: The model is on another rank's GPU.
    """
    if world() > 1 and device.type == "cuda" and device.index != local_rank():
        raise UsageError(
            f"the model of rank {rank()} is on {device}, wanted cuda:{local_rank()}",
            "move it to cuda inside limpet.training.distributed.process_group()",
        )


def shard(rows: int) -> slice:
    """This rank's rows of a global batch: ranks hold equal, consecutive parts in their order.

    Args:
        rows: Rows of the global batch.

    Raises:
        UsageError: They do not divide evenly among the ranks.
    """
    each, rest = divmod(rows, world())
    if rest:
        raise UsageError(
            f"a batch of {rows} rows does not divide among {world()} ranks",
            f"take {each * world()} or {(each + 1) * world()} rows, or another --nproc-per-node",
        )
    return slice(rank() * each, (rank() + 1) * each)


def gather(rows: Tensor) -> Tensor:
    """All ranks' rows in the order of the ranks; gradients flow back to where a row came from.

    Args:
        rows: This rank's rows, as many as every other rank's. (b, ...)

    Returns:
        (world * b, ...); for the parts of one batch that `shard` makes, the batch.
    """
    if world() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [rows.new_empty(rows.shape) for _ in range(world())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        exact = torch.promote_types(gradient.dtype, torch.float32)  # half precision would round
        total = gradient.to(exact, copy=True).contiguous()
        dist.all_reduce(total)
        return total.chunk(world())[rank()].to(gradient.dtype)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the ranks, in one exchange.

    A rank that has no gradient of a parameter counts as zero; where no rank has one, it stays None.
    """
    if world() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    present = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), present])
    dist.all_reduce(flat)
    *totals, present = torch.split(flat, [*(p.numel() for p in trained), len(trained)])
    for parameter, total, ranks in zip(trained, totals, present.tolist(), strict=True):
        if ranks:
            parameter.grad = (total / world()).view_as(parameter).to(parameter.dtype)


def average(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean over the ranks of each scalar, whatever its unit.

    Args:
        figures: Tensors of shape (); all ranks give the same names in the same order.
    """
    total = torch.tensor([float(each.detach()) for each in figures.values()], dtype=torch.float64)
    if world() > 1:
        dist.all_reduce(total)
    return dict(zip(figures, (total / world()).tolist(), strict=True))


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank; none comes back before all have asked."""
    if world() == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags)
    return bool(flags)


def from_leader(content: bytes) -> bytes:
    """What rank 0 has; the other ranks' content is ignored."""
    if world() == 1:
        return content
    size = torch.tensor(len(content))
    dist.broadcast(size, 0)
    shared = torch.frombuffer(bytearray(content if leads() else int(size)), dtype=torch.uint8)
    dist.broadcast(shared, 0)
    return shared.numpy().tobytes()
