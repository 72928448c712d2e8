"""Faults that several streams see: recordings, cut so that it is known which incidents belong
together.

A pool holds, for each fault, streams of one model that show it. From it timelines are drawn: bursts
in which independent faults begin almost at once, each seen by several streams, a little apart.

Dimension legend: n rows, c channels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.correlation import Onset
from limpet.contracts.detector import Detector, DetectorConfig
from limpet.contracts.fingerprints import Fingerprint, Fingerprinter
from limpet.contracts.recordings import load_recording
from limpet.contracts.scoring import SignalScorer
from limpet.export.anomaly import run_manifest
from limpet.export.runs import torch_run
from limpet.training.anomaly.config import AnomalyConfig
from limpet.training.anomaly.model import load_scorer
from limpet.training.anomaly.train import train_anomaly
from tests.benchmarks.anomaly.series import cwru
from tests.benchmarks.groups.synthetic import FAULTS, machine

Values = NDArray[np.float64]
Shown = Iterable[tuple[str, Values, int]]
"""Streams: the fault's name, rows (n, c), and the row at which the fault begins."""

BURSTS = 40
MOST_FAULTS, MOST_STREAMS = 3, 4
"""Faults in a burst, and streams that see one, at most; both begin at 1."""
APART, LAG = 0.5, 0.25
"""Faults of a burst begin within this many look-backs of each other, a fault's streams within that
many."""
BETWEEN = 20.0
"""Look-backs between two bursts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One incident of a stream; times count from the beginning of its fault.

    Attributes:
        start_s: Its first anomalous row.
        open_s: The row that opened it.
        end_s: The row that closed it.
        fingerprint: As a server would take it.
        belongs: Whether the fault made it; before the fault it is a false alarm.
    """

    start_s: float
    open_s: float
    end_s: float
    fingerprint: Fingerprint
    belongs: bool


@dataclass(frozen=True, eq=False)
class Pool:
    """Faults, each with the incidents of every stream that shows it."""

    name: str
    look_back_s: float
    faults: Mapping[str, Sequence[Sequence[Seen]]]

    @property
    def streams(self) -> int:
        """Streams in all."""
        return sum(map(len, self.faults.values()))


@dataclass(frozen=True, eq=False)
class Entry:
    """An incident on a timeline, and the number of the fault that it belongs to."""

    open_s: float
    end_s: float
    onset: Onset
    truth: int


def make_pool(
    name: str, train: Values, rate_hz: float, shown: Shown, config: AnomalyConfig | None = None
) -> Pool:
    """Trains one encoder as `limpet train anomaly` does, then scores each stream as a server does.

    Args:
        name: Of the pool.
        train: Normal rows (n, c) or segments of them (g, n, c).
        rate_hz: Rows per second.
        shown: Streams; those in which nothing is noticed are left out.
        config: Of the training.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "train.npz", x=train)
        calibration = train_anomaly(
            Path(folder) / "train.npz", Path(folder) / "run", config, key="x", rate_hz=rate_hz
        ).calibration
        model, record = load_scorer(Path(folder) / "run")
    manifest = run_manifest(name, model, record, "fp32")
    scorer = SignalScorer(manifest, torch_run(model, manifest))
    look_back_s = (scorer.preprocessor.warm_up_rows + 1) / rate_hz
    faults: dict[str, list[list[Seen]]] = {}
    for fault, values, begin in shown:
        scorer.reset()
        rows = scorer.push(values)
        release = calibration.release_threshold
        detector = Detector(DetectorConfig(), calibration.threshold, release)
        fingerprinter = Fingerprinter(release)
        found: list[Seen] = []
        for event in detector.push(rows.scores):
            at_s = (event.index - begin) / rate_hz
            if event.kind == "open":
                direction = fingerprinter.direction_at(rows, event.index)
                found.append(
                    Seen(
                        start_s=at_s - (event.rows - 1) / rate_hz,
                        open_s=at_s,
                        end_s=(len(values) - begin) / rate_hz,
                        fingerprint=Fingerprint(look_back_s, direction),
                        belongs=event.index >= begin,
                    )
                )
            elif event.kind == "close":
                opened = found.pop()
                found.append(Seen(**{**vars(opened), "end_s": at_s}))
        faults.setdefault(fault, []).append(found)
    return Pool(name, look_back_s, faults)


def timeline(pool: Pool, seed: int) -> list[Entry]:
    """Incidents of a plant, in the order in which they open."""
    rng = np.random.default_rng(seed)
    entries: list[Entry] = []
    truth = 0
    for burst in range(BURSTS):
        names = rng.permutation(list(pool.faults))[: rng.integers(1, MOST_FAULTS + 1)]
        for name in names.tolist():
            truth += 1
            streams = pool.faults[name]
            count = min(len(streams), int(rng.integers(1, MOST_STREAMS + 1)))
            begin_s = pool.look_back_s * (1.0 + burst * BETWEEN + APART * rng.random())
            for index in rng.permutation(len(streams))[:count].tolist():
                start_s = begin_s + LAG * pool.look_back_s * rng.random()
                entries += _shift(streams[index], f"{truth}-{index}", start_s, truth, pool.name)
    alarms = iter(range(truth + 1, truth + 1 + len(entries)))
    entries = [e if e.truth else Entry(e.open_s, e.end_s, e.onset, next(alarms)) for e in entries]
    return sorted(entries, key=lambda entry: entry.open_s)


def _shift(
    seen: Sequence[Seen], stream: str, by_s: float, truth: int, space_id: str
) -> Iterator[Entry]:
    for one in seen:
        onset = Onset(
            stream=stream,
            space_id=space_id,
            start_ns=round((one.start_s + by_s) * 1e9),
            fingerprint=one.fingerprint,
        )
        yield Entry(one.open_s + by_s, one.end_s + by_s, onset, truth if one.belongs else 0)


# The recordings -----------------------------------------------------------------------------------


def synthetic(_: Path) -> Pool:
    """Six channels of one kind of machine, eight faults, 1 Hz."""
    rng = np.random.default_rng(0)
    train = np.stack([machine(rng, 1500) for _ in range(4)])

    def shown() -> Iterator[tuple[str, Values, int]]:
        for fault, change in FAULTS.items():
            for _ in range(8):
                values, length = machine(rng, 800), int(rng.integers(60, 200))
                values[500 : 500 + length] = change(
                    values[500 : 500 + length], rng.uniform(0.6, 1.5), rng
                )
                yield fault, values, 500

    return make_pool("synthetic", train, 1.0, shown())


def bearings(data: Path) -> Iterator[Pool]:
    """Case Western's six faults at unit RMS, four stretches each, by each of two sensors."""
    rng = np.random.default_rng(0)
    for item in cwru(data):
        rest = _joined(item.test["normal"])
        stretches = {name: x for name, x in item.test.items() if name != "normal"}

        def shown(
            rest: Values = rest, stretches: Mapping[str, Values] = stretches
        ) -> Iterator[tuple[str, Values, int]]:
            for name, windows in stretches.items():
                for part in np.array_split(windows, 4):
                    fault = _joined(part) * rng.uniform(0.9, 1.1)
                    yield name, np.concatenate([rest, fault]), len(rest)

        yield make_pool(f"cwru {item.name}", _joined(item.train), item.rate_hz, shown())


def _joined(windows: Values) -> Values:
    """Windows that overlap by half, as one recording. (n, c)"""
    half = windows.shape[1] // 2
    return np.concatenate([*windows[:, :half], windows[-1, half:]])


def machine_temperature(data: Path) -> Pool:
    """NAB's failing machine: its four labelled faults, each as six sensors might see it."""
    file = data / "nab/realKnownCause/machine_temperature_system_failure.csv"
    recording = load_recording(file)
    rng = np.random.default_rng(0)
    windows = _nab_windows(data, file, recording.times_ns)

    def shown() -> Iterator[tuple[str, Values, int]]:
        for start, stop in windows:
            before = min(900, start)
            for _ in range(6):
                x = recording.values[start - before : stop + 200]
                x = x * rng.uniform(0.95, 1.05) + rng.normal(0.0, 0.3, x.shape)
                yield f"row {start}", x + rng.uniform(-5.0, 5.0), before

    return make_pool("nab", recording.values[:1998], 1 / 300, shown())


def _nab_windows(
    data: Path, file: Path, times_ns: NDArray[np.int64] | None
) -> list[tuple[int, int]]:
    assert times_ns is not None
    windows = json.loads((data / "nab/labels/combined_windows.json").read_text())
    return [
        tuple(  # type: ignore[misc]
            int(
                np.searchsorted(
                    times_ns, np.datetime64(text[:19].replace(" ", "T"), "ns").astype(int)
                )
            )
            for text in pair
        )
        for pair in windows[f"realKnownCause/{file.name}"]
    ]


def run_to_failure(data: Path) -> Pool:
    """FEMTO's six bearings, whose two accelerometers, at right angles, are two streams each."""
    train, streams = [], []
    for file in sorted((data / "femto").glob("*.npz")):
        with np.load(file) as arrays:
            snapshots = arrays["acc_mg"].astype(np.float64) / 1000.0  # (100, 2560, 2)
        for axis in (0, 1):
            train.append(snapshots[:20, :, axis].reshape(-1, 1))
            whole = snapshots[:, :, axis].reshape(-1, 1)
            streams.append((file.stem.removeprefix("Learning_set_"), whole, len(train[-1])))
    return make_pool("femto", np.stack(train), 25_600.0, streams)


def robot_arm(data: Path) -> Iterator[Pool]:
    """Failures of a robot arm, four executions each after twelve normal ones, by approach (lp1)."""
    for name in ("lp1", "lp2"):
        segments = _executions(data / "robot_failures" / f"{name}.data")
        normal = segments.pop("normal")
        cut = round(0.6 * len(normal))
        rng = np.random.default_rng(0)

        def shown(
            normal: Values = normal,
            segments: Mapping[str, Values] = segments,
            cut: int = cut,
            rng: np.random.Generator = rng,
        ) -> Iterator[tuple[str, Values, int]]:
            for kind, failures in segments.items():
                for failure in failures[:8]:
                    calm = normal[cut + rng.integers(0, len(normal) - cut, 12)]
                    calm = calm.reshape(-1, calm.shape[2])
                    yield kind, np.concatenate([calm, failure]), len(calm)

        yield make_pool(
            f"robot {name}", normal[:cut], 15 / 0.315, shown(), AnomalyConfig(baseline="training")
        )


def _executions(file: Path) -> dict[str, Values]:
    """Executions by outcome. (g, 15, 6) each"""
    found: dict[str, list[Values]] = {}
    for block in file.read_text().split("\n\n"):
        name, *lines = block.strip().splitlines()
        rows = np.array([line.split() for line in lines], np.float64)
        found.setdefault(name.strip(), []).append(rows)
    return {name: np.stack(rows) for name, rows in found.items()}


def valves(data: Path) -> Pool:
    """SKAB, which nothing here was developed on: runs in which one of two valves was closed."""
    train = load_recording(data / "skab/anomaly-free/anomaly-free.csv").values

    def shown() -> Iterator[tuple[str, Values, int]]:
        for valve in ("valve1", "valve2"):
            for file in sorted((data / "skab" / valve).glob("*.csv"), key=lambda f: int(f.stem)):
                recording = load_recording(file)
                assert recording.labels is not None
                yield valve, recording.values, int(np.flatnonzero(recording.labels)[0])

    return make_pool("skab", train, 1.0, shown())
