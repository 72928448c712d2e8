"""A server of one peer, in that peer's environment: `run_server PEER MODEL`."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(f"tests.benchmarks.peers.{sys.argv[1]}").serve(sys.argv[2])
