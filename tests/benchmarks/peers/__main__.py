"""limpet beside other servers: the same ONNX files, the same settings of ONNX Runtime, the same
bytes, interleaved in one run.

    python -m tests.benchmarks.peers --json tests/benchmarks/results/peers.json

Each peer has a virtual environment of its own, made on the first run. `groot_shaped` and
`openpi_shaped` are written by us after public descriptions. Floors: the model in the client's own
process, and a raw ZeroMQ echo, which computes nothing. Overhead is the time of a request less the
p50 of the model in process. Bodies are binary everywhere, and every answer is compared with what
was sent. The JSON is written after every visit, so that what was measured stays; a peer that cannot
be installed, started or measured is in it with its error.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from limpet.contracts.reports import write_json
from limpet.runtime.demo.children import termination_interrupts
from limpet.runtime.machine import describe_machine
from tests.benchmarks.peers.catalogue import ECHO, IN_PROCESS, PEERS, Peer
from tests.benchmarks.peers.comparison import (
    LatencyRow,
    RateRow,
    Verdict,
    latency_rows,
    rate_rows,
    tables,
    verdicts,
)
from tests.benchmarks.peers.environments import PeerError, environment, pins
from tests.benchmarks.peers.visits import (
    IDENTITY,
    MODELS_MS,
    Effort,
    Latency,
    Rate,
    Visit,
    visit,
    visit_in_process,
    write_models,
)

FULL = Effort(rounds=3, requests=800, warm=100, seconds=2.5, warm_s=0.5)
QUICK = Effort(rounds=1, requests=200, warm=20, seconds=1.0, warm_s=0.2)
ENVIRONMENTS = Path.home() / ".cache" / "limpet" / "peers"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One peer, for readers of the JSON."""

    rows: tuple[str, ...]
    versions: dict[str, str]
    licence: str
    written_by_us: bool
    settings: str
    values: dict[str, object]


class Report(msgspec.Struct, kw_only=True):
    """The JSON.

    Attributes:
        machine: What it was measured on.
        engine: How every peer runs the models.
        effort: How much was.
        complete: Whether all visits were made.
        seconds: They took so far, without making environments.
        errors: Of peers that could not be measured, by row or by row and model.
        peers: How each is set up.
        latency: One client.
        rates: 16 clients.
        verdicts: On the targets.
        measured_latency: All visits.
        measured_rates: The same.
    """

    machine: dict[str, str | int]
    engine: str = (
        "ONNX Runtime in the same version, CPU provider, one session with one thread that does not "
        "spin, in every peer and in process"
    )
    effort: Effort
    complete: bool = False
    seconds: float = 0.0
    errors: dict[str, str] = {}
    peers: list[Setup] = []
    latency: list[LatencyRow] = []
    rates: list[RateRow] = []
    verdicts: list[Verdict] = []
    measured_latency: list[Latency] = []
    measured_rates: list[Rate] = []

    def add(self, came: Visit, model: str) -> None:
        """Takes in what a visit measured."""
        self.errors.update({f"{row}, {model}": text for row, text in came.errors.items()})
        self.measured_latency += came.latency
        self.measured_rates += came.rates
        self.latency = latency_rows(self.measured_latency)
        self.rates = rate_rows(self.measured_rates)
        self.verdicts = verdicts(self.latency, self.rates)


def say(text: str) -> None:
    """Tells what is being done."""
    sys.stderr.write(f"{text}\n")


def setup(peer: Peer) -> Setup:
    """How it is set up."""
    return Setup(
        rows=peer.rows,
        versions=pins(peer) if peer.packages else {},
        licence=peer.licence,
        written_by_us=peer.by_us,
        settings=peer.why,
        values=peer.settings,
    )


def pythons(folder: Path, report: Report) -> dict[str, str]:
    """The Python of each peer that can be installed."""
    found = {}
    for peer in PEERS:
        say(f"the environment of {peer.rows[0]}")
        try:
            found[peer.module] = environment(folder, peer)
        except (PeerError, OSError) as error:
            report.errors.update(dict.fromkeys(peer.rows, str(error)))
            say(f"{peer.rows[0]} cannot be installed: {error}")
    return found


def order(turn: int) -> list[tuple[str, Peer | None]]:
    """Models and whom to visit; None is the model in process. Peers of one model are visited one
    after another, in each round in another order, which is the same in every run.
    """
    rng = random.Random(turn)
    visits: list[tuple[str, Peer | None]] = []
    for model in MODELS_MS:
        # The echo computes nothing, so that one model is enough.
        peers = [peer for peer in PEERS if peer.rows != (ECHO,) or model == IDENTITY]
        visits += [(model, peer) for peer in rng.sample([*peers, None], len(peers) + 1)]
    return visits


def measure(folder: Path, found: dict[str, str], report: Report, json: Path | None) -> None:
    """Makes all visits."""
    models = write_models(folder)
    begun_s = time.monotonic()
    for turn in range(report.effort.rounds):
        for model, peer in order(turn):
            if peer is not None and peer.module not in found:
                continue
            name = peer.rows[0] if peer is not None else IN_PROCESS
            say(f"{time.monotonic() - begun_s:5.0f} s: round {turn + 1}, {model}, {name}")
            path = models[model]
            try:
                if peer is None:
                    came = visit_in_process(sys.executable, model, path, turn, report.effort)
                else:
                    came = visit(found[peer.module], peer, model, path, turn, report.effort)
            except PeerError as error:
                came = Visit(errors={name: str(error)})
            report.add(came, model)
            for row, text in came.errors.items():
                say(f"{row} failed: {text}")
            report.seconds = time.monotonic() - begun_s
            if str(json) != "-":
                write_json(json, report)
    report.complete = True


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="folder of the peers' virtual environments (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does all of it run?")
    parser.add_argument("--rounds", type=int, help="of visits to every peer (default: 3, quick: 1)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    report = Report(
        machine=describe_machine(),
        effort=msgspec.structs.replace(effort, rounds=options.rounds or effort.rounds),
        peers=[setup(peer) for peer in PEERS],
    )
    found = pythons(options.environments, report)
    interrupted = False
    with termination_interrupts(), tempfile.TemporaryDirectory(prefix="limpet-peers-") as folder:
        try:
            measure(Path(folder), found, report, options.json)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; what was measured is kept")
    if not write_json(options.json, report):
        print(tables(report.latency, report.rates))
        print()
        for verdict in report.verdicts:
            print(verdict)
        for name, error in report.errors.items():
            print(f"not measured: {name}: {error}")
    sys.exit(130 if interrupted else 1 if report.errors else 0)


if __name__ == "__main__":
    main()
