"""Which incidents of several streams become one group, against controls.

    python -m tests.benchmarks.groups --data ../shared/data

Timelines drawn from real recordings and a synthetic plant (`plants`): bursts of independent faults
that begin almost at once, each seen by one to four streams of one model. Judged over all pairs of
incidents: precision (of pairs in one group, those of one fault), recall (of pairs of one fault,
those in one group) and the adjusted Rand index. The agreement was chosen on all of them but SKAB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from limpet.contracts.correlation import Correlator, GroupingConfig, Onset
from limpet.contracts.reports import format_table, write_json
from limpet.runtime.machine import describe_machine
from tests.benchmarks.groups import plants
from tests.benchmarks.groups.plants import Entry, Pool

REPOSITORY = Path(__file__).resolve().parents[3]
RESULTS = REPOSITORY / "tests/benchmarks/results/groups.json"
TIMELINES = 4


class Recorder(Correlator):
    """Ours; remembers every weight for a search over all clusterings of the same weights."""

    def __init__(self, config: GroupingConfig) -> None:
        super().__init__(config)
        self.weights: dict[tuple[str, int, str, int], float] = {}

    def agreement(self, new: Onset, old: Onset) -> float | None:
        """As ours."""
        weight = super().agreement(new, old)
        if weight is not None:
            self.weights[new.stream, new.start_ns, old.stream, old.start_ns] = weight
        return weight


class TimeOnly(Correlator):
    """Whatever is close in time is one."""

    def agreement(self, new: Onset, old: Onset) -> float | None:
        """1 within the horizon."""
        return None if super().agreement(new, old) is None else 1.0


class NothingShared(Correlator):
    """Ours with the bare cosine: what incidents have in common stays in."""

    def _add(self, incident: int, onset: Onset) -> None:
        super()._add(incident, onset)
        self._shared.clear()


def assign(correlator: Correlator, entries: Sequence[Entry]) -> list[int]:
    """Groups of incidents that open and close in the order of their times."""
    closes: list[tuple[float, int]] = []
    groups = []
    for incident, entry in enumerate(entries, start=1):
        for end_s, number in [c for c in closes if c[0] <= entry.open_s]:
            correlator.close(number, round(end_s * 1e9))
        closes = [c for c in closes if c[0] > entry.open_s]
        groups.append(correlator.open(incident, entry.onset))
        closes.append((entry.end_s, incident))
    return groups


def searched(entries: Sequence[Entry], groups: Sequence[int], recorder: Recorder) -> list[int]:
    """The groups after moving single incidents while that raises the agreement: what it costs that
    placements are final.
    """
    n = len(entries)
    place = {(e.onset.stream, e.onset.start_ns): i for i, e in enumerate(entries)}
    near: list[dict[int, float]] = [{} for _ in range(n)]
    for (a, a_ns, b, b_ns), weight in recorder.weights.items():
        i, j = place[a, a_ns], place[b, b_ns]
        near[i][j] = near[j][i] = weight
    found, moved = list(groups), True
    while moved:
        moved = False
        for i in range(n):
            sums = {-1 - i: 0.0, found[i]: 0.0}
            for j, weight in near[i].items():
                sums[found[j]] = sums.get(found[j], 0.0) + weight
            best = max(sums, key=sums.__getitem__)
            if sums[best] > sums[found[i]] + 1e-9:
                found[i], moved = best, True
    return found


def judge(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, float]:
    """Precision and recall over the pairs of all timelines, mean adjusted Rand index."""
    both = found = true = 0
    for groups, truth in pairs:
        g, t = np.asarray(groups), np.asarray(truth)
        same_g, same_t = (np.triu(x[:, None] == x[None], 1) for x in (g, t))
        both += int((same_g & same_t).sum())
        found, true = found + int(same_g.sum()), true + int(same_t.sum())
    return {
        "precision": both / found if found else float("nan"),
        "recall": both / true if true else float("nan"),
        "rand": float(np.mean([adjusted_rand_score(t, g) for g, t in pairs])),
    }


def methods(agreement: float) -> dict[str, Callable[[], Correlator]]:
    """Ours, its ablations, and controls."""
    ours = GroupingConfig(agreement=agreement)
    return {
        "ours": lambda: Recorder(ours),
        "ours, nothing taken out": lambda: NothingShared(ours),
        "embedding only": lambda: Correlator(GroupingConfig(horizon_s=1e9, agreement=agreement)),
        "time only": lambda: TimeOnly(ours),
    }


def measure(pool: Pool, agreement: float) -> dict[str, dict[str, float]]:
    """All methods on the timelines of one pool."""
    lines = [plants.timeline(pool, seed) for seed in range(TIMELINES)]
    truths = [[entry.truth for entry in line] for line in lines]
    found: dict[str, dict[str, float]] = {}
    for name, make in methods(agreement).items():
        correlators = [make() for _ in lines]
        groups = [assign(c, line) for c, line in zip(correlators, lines, strict=True)]
        found[name] = judge(list(zip(groups, truths, strict=True)))
        if name == "ours":
            better = [
                searched(line, g, c)
                for line, g, c in zip(lines, groups, correlators, strict=True)
                if isinstance(c, Recorder)
            ]
            found["ours, searched offline"] = judge(list(zip(better, truths, strict=True)))
    found["all in one"] = judge([([0] * len(t), t) for t in truths])
    return found


def load_all(data: Path) -> Iterator[Pool]:
    """All pools, that of the report last."""
    yield plants.synthetic(data)
    yield from plants.bearings(data)
    yield plants.machine_temperature(data)
    yield plants.run_to_failure(data)
    yield from plants.robot_arm(data)
    yield plants.valves(data)


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "../shared/data")
    parser.add_argument("--json", type=Path, dest="json_file", default=RESULTS)
    parser.add_argument("--agreement", type=float, default=GroupingConfig().agreement)
    options = parser.parse_args()
    results = []
    for pool in load_all(options.data):
        for name, figures in measure(pool, options.agreement).items():
            results.append({"plant": pool.name, "method": name, **figures})
    plants_there = list(dict.fromkeys(r["plant"] for r in results))
    table = [
        [
            method,
            *(
                f"{r['precision']:.2f} {r['recall']:.2f} {r['rand']:.2f}"
                for plant in plants_there
                for r in results
                if (r["plant"], r["method"]) == (plant, method)
            ),
        ]
        for method in dict.fromkeys(r["method"] for r in results)
    ]
    print("precision, recall of pairs, adjusted Rand index")
    print(format_table(["", *plants_there], table))
    write_json(
        options.json_file,
        {"machine": describe_machine(), "agreement": options.agreement, "results": results},
    )


if __name__ == "__main__":
    main()
