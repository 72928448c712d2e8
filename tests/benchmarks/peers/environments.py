"""A virtual environment for each peer, made on the first run and made anew when its pins change."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.peers.catalogue import Peer

INSTALL_S = 900.0
PINS = "pins.json"
TAIL = 2000
"""Characters of pip's last words that an error quotes."""


class PeerError(Exception):
    """A peer cannot be installed, started or measured."""


def pins(peer: Peer) -> dict[str, str]:
    """What its environment has: its packages, and ONNX Runtime as limpet has it."""
    return {"onnxruntime": version("onnxruntime"), **peer.packages}


def environment(folder: Path, peer: Peer) -> str:
    """The Python of a peer's environment.

    Raises:
        PeerError: It cannot be made; what pip said.
    """
    if not peer.packages:
        return sys.executable
    place = folder / peer.module
    python = place / "bin" / "python"
    stated = json.dumps(pins(peer), indent=2)
    mark = place / PINS
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == stated:
        return str(python)
    venv.create(place, with_pip=True, clear=True)
    wanted = [f"{name}=={number}" for name, number in pins(peer).items()]
    try:
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *wanted],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"pip did not end within {INSTALL_S:g} s") from error
    if done.returncode:
        raise PeerError(f"pip install {' '.join(wanted)} failed:\n{done.stderr[-TAIL:]}")
    mark.write_text(stated, encoding="utf-8")  # last: an interrupted install starts again
    return str(python)
