"""limpet beside servers of other shapes, the same model and bytes, interleaved in one run.

    python -m tests.benchmarks.peers --venvs FOLDER --json tests/benchmarks/results/peers.json

Each peer has a virtual environment of its own in FOLDER, made on the first run, with the same
version of ONNX Runtime and NumPy as limpet's. `groot_shaped` and `openpi_shaped` are written by us
from public descriptions. Floors: the model in the client's own process, and a raw ZeroMQ echo,
which computes nothing. Overhead is a request's time minus that of the model in process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from limpet.contracts.bundle import MODEL
from limpet.contracts.reports import format_table, write_json
from limpet.runtime.bench.processes import running
from limpet.runtime.bench.work import steps_for, write_work_bundle
from limpet.runtime.machine import describe_machine

ROOT = Path(__file__).resolve().parents[3]
PEERS = {"groot_shaped": ["pyzmq", "msgpack"], "openpi_shaped": ["websockets", "msgpack"]}
SIZES = {"4 KB": 1024, "150 KB": 37_632, "0.9 MB": 230_400}
MODELS_MS = {"next to nothing": 0.0, "1 ms": 1.0}
TURNS = 30
CLIENTS = 16


def environment(folder: Path, peer: str) -> str:
    """The Python of a peer's environment, which is made where there is none."""
    place = folder / peer
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True, clear=True)
        pinned = [f"{name}=={version(name)}" for name in ("onnxruntime", "numpy")]
        install = [str(python), "-m", "pip", "install", "--quiet", *pinned, *PEERS[peer]]
        subprocess.run(install, check=True)
    return str(python)


class Client:
    """A process that sends requests when it is told to."""

    def __init__(self, python: str, peer: str, endpoint: str) -> None:
        own = [python, "-m", "tests.benchmarks.peers.run_client", peer, endpoint]
        self._process = subprocess.Popen(
            own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_paths(python)
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.communicate()


def _paths(python: str) -> dict[str, str]:
    """The environment's variables: limpet's packages for limpet's own Python only."""
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    if python != sys.executable:
        own["PYTHONPATH"] = str(ROOT)
    return own


@contextlib.contextmanager
def serving(python: str, peer: str, model: Path) -> Iterator[str]:
    """A peer's server; its endpoint."""
    command = [python, "-m", "tests.benchmarks.peers.run_server", peer, str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_paths(python))
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def measure(
    folder: Path, venvs: Path, label: str, steps: int, requests: int, seconds: float
) -> list[dict[str, Any]]:
    """Rows of one model: every peer at every size, and throughput at 4 KB."""
    bundle = write_work_bundle(folder / "bundle", "work", steps)
    model = bundle.path / MODEL
    config = folder / "serve.toml"
    config.write_text(
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        '[[models]]\nbundle = "bundle"\n',
        encoding="utf-8",
    )
    rows = []
    with contextlib.ExitStack() as stack:
        limpet = stack.enter_context(running(["limpet.runtime.cli", "serve", str(config)]))
        here = sys.executable
        echo = stack.enter_context(serving(here, "floors", model))
        clients = {
            "limpet lane": Client(here, "limpet lane", limpet.endpoints[0]),
            "limpet tcp": Client(here, "limpet tcp", limpet.endpoints[0]),
        }
        for peer in PEERS:
            python = environment(venvs, peer)
            endpoint = stack.enter_context(serving(python, peer, model))
            clients[peer] = Client(python, peer, endpoint)
        clients["raw ZeroMQ echo"] = Client(here, "floors", echo)
        clients["in process"] = Client(here, "in process", str(model))
        for client in clients.values():
            stack.callback(client.close)
        for size, values in SIZES.items():
            sys.stderr.write(f"measuring {label}, {size}\n")
            took: dict[str, list[int]] = {name: [] for name in clients}
            for turn in range(TURNS + 1):
                for name, client in clients.items():
                    answer = client.ask(values=values, count=max(1, requests // TURNS))
                    took[name] += answer["ns"] if turn else []
            inside = float(np.median(took["in process"])) / 1e3
            for name, times in took.items():
                p50, p99 = np.percentile(times, [50, 99]) / 1e3
                rows.append(
                    {
                        "model": label, "size": size, "peer": name, "requests": len(times),
                        "p50_us": float(p50), "p99_us": float(p99),
                        "overhead_p50_us": float(p50) - inside,
                        "overhead_p99_us": float(p99) - inside,
                        "per_s_16_clients": None,
                    }
                )  # fmt: skip
        for name, client in clients.items():
            if name == "in process":
                continue
            sys.stderr.write(f"measuring {label}, {CLIENTS} clients of {name}\n")
            done = client.ask(values=SIZES["4 KB"], clients=CLIENTS, seconds=seconds)
            row = next(r for r in rows if (r["size"], r["peer"]) == ("4 KB", name))
            row["per_s_16_clients"] = done["count"] / seconds
    return rows


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venvs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--requests", type=int, default=1500, help="of each peer for a row")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a row of throughput")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for label, milliseconds in MODELS_MS.items():
        steps = steps_for(milliseconds) if milliseconds else 1
        with tempfile.TemporaryDirectory(prefix="limpet-bench-") as name:
            rows += measure(
                Path(name), options.venvs, label, steps, options.requests, options.seconds
            )
    report = {"machine": describe_machine(), "rows": rows}
    if write_json(options.json, report):
        return
    print(
        format_table(
            ["model", "size", "peer", "p50/p99 µs", "overhead p50/p99 µs", "per s, 16 clients"],
            [
                [
                    row["model"],
                    row["size"],
                    row["peer"],
                    f"{row['p50_us']:.0f} / {row['p99_us']:.0f}",
                    f"{row['overhead_p50_us']:.0f} / {row['overhead_p99_us']:.0f}",
                    "-" if row["per_s_16_clients"] is None else f"{row['per_s_16_clients']:.0f}",
                ]
                for row in rows
            ],
        )
    )


if __name__ == "__main__":
    main()
