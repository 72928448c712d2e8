"""Which of the processes that `torchrun` started this one is; needs no torch.

torchrun tells each process its place by environment variables. Without them there is one process,
rank 0 of 1. Rank 0 leads: it alone writes files and shows progress.
"""

from __future__ import annotations

import os

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Set by torchrun, always together; fewer of them are some other program's."""


def rank() -> int:
    """Place of this process among all, from 0."""
    return _read("RANK", alone=0)


def local_rank() -> int:
    """Place of this process among those of its machine, from 0: the number of its GPU."""
    return _read("LOCAL_RANK", alone=0)


def world() -> int:
    """Number of processes that train together."""
    return _read("WORLD_SIZE", alone=1)


def leads() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return rank() == 0


def _read(variable: str, alone: int) -> int:
    return int(os.environ[variable]) if all(name in os.environ for name in VARIABLES) else alone
