"""A server of one peer, in that peer's environment: `run_server MODULE MODEL SETTINGS`."""

from __future__ import annotations

import ctypes
import importlib
import json
import signal
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ends servers as Ctrl-C does, upon which all of them end their own processes."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    if sys.platform == "linux":  # a benchmark that is killed leaves no server behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, interrupt)
    module = importlib.import_module(f"tests.benchmarks.peers.{sys.argv[1]}")
    try:
        module.serve(sys.argv[2], **json.loads(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(0)
