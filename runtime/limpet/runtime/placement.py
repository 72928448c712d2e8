"""Which cores a server runs on, and how urgently: what a configuration asks of the system."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Collection

from limpet.contracts.errors import ConfigError
from limpet.runtime.admission import usable_cores

MEND = (
    "allow it by one of: `ulimit -r {0}` in a shell that root has started, the line "
    "`USER - rtprio {0}` in /etc/security/limits.conf, `LimitRTPRIO={0}` in the systemd unit, "
    "the capability CAP_SYS_NICE; or take realtime_priority out of [server]"
)


def place(cores: Collection[int], realtime_priority: int | None) -> None:
    """Moves this process to its cores, and this thread to its priority.

    Threads that are started later inherit both; so it comes before a server is made.

    Args:
        cores: Numbers of the only ones to run on, as the system counts; none: wherever it likes.
        realtime_priority: Of the policy SCHED_FIFO, 1 to 99: whatever else wants the core waits.
            None: as every other process.

    Raises:
        ConfigError: The system has no such core, or does not permit the priority.
    """
    if cores:
        try:
            for task in os.listdir("/proc/self/task"):  # those of libraries that are loaded, too
                os.sched_setaffinity(int(task), cores)
        except (AttributeError, OSError) as error:
            raise ConfigError(
                f"[server] cores = {sorted(cores)}: {error}",
                f"this process may run on {_usable()}; take cores out to let the system choose",
            ) from error
    if realtime_priority is not None:
        try:
            _make_realtime(realtime_priority)
        except (AttributeError, OSError) as error:
            raise ConfigError(
                f"[server] realtime_priority = {realtime_priority}: {error}; the limit is "
                f"{permitted_priority()}",
                MEND.format(realtime_priority),
            ) from error


def _make_realtime(priority: int) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


def _usable() -> str:
    if hasattr(os, "sched_getaffinity"):
        return f"cores {sorted(os.sched_getaffinity(0))}"
    return f"{usable_cores()} cores of the system's choice"


def permitted_priority() -> int:
    """What `ulimit -r` says, for users without CAP_SYS_NICE."""
    limit = getattr(resource, "RLIMIT_RTPRIO", None)
    return 0 if limit is None else resource.getrlimit(limit)[0]


def may_be_realtime() -> bool:
    """Whether a thread of this process may be: one tries."""
    answers = []

    def attempt() -> None:
        try:
            _make_realtime(1)
        except (AttributeError, OSError):
            answers.append(False)
        else:
            answers.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return answers == [True]
