"""What each part of the grasp encoder is worth: every arm at the same budget, on one data set.

    nice python -m tests.benchmarks.grasp_arms --data ROOT --cache DIR \
        --json tests/benchmarks/results/grasp_arms.json [--arms two,one,prefusion --seeds 0,1,2]

Each arm is trained for --steps steps by what `limpet train grasp` calls, on the train scenes, and
judged by what `limpet evaluate grasp` calls, on the test scenes:

    two                   two views, registered, and fused after the backbone
    one                   one view
    prefusion             the clouds of both merged into one before the network, by the poses told
    prefusion_registered  the same after they are registered
    two_unregistered      two views fused after the backbone, by the poses told
    no_con …              two views without L_con, L_dis, both losses, SimAli, CylReg or AltAtt
    antipodal             no network: antipodal points of the same clouds, two views and one

Every network sees in training what it is judged on and nothing else: with `two` no view is left
out, and the only error of camera poses is that of the scenes, which the merged cloud has as well.
Only --size reference trains as the reference bundle was, where the same weights serve one view too.
What is finished in --cache is kept and an interrupted run is resumed; the report, of all that is
there at this budget, is written anew after each arm. Differences are paired by view: the interval
is that of their mean, by a bootstrap over views; what another seed would change is not in it, and
`spread` (standard deviation over seeds) tells that. With --pose-errors, what sees two views is
judged with that many times the scenes' error, too.

Dimension legend: s seeds of an arm, w views of all splits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.reports import format_table, write_json
from limpet.export.evaluate_grasp import TEST_SPLITS, evaluate_grasp
from limpet.runtime.machine import describe_machine
from limpet.training.grasp.config import GraspConfig
from limpet.training.grasp.judging.evaluation import SplitFigures
from limpet.training.grasp.judging.view_pairs import CORNER_SHARE
from limpet.training.grasp.train import train_grasp
from limpet.training.intervals import bootstrap
from limpet.training.run import RECORD, RunFolder
from limpet.training.threads import one_thread

Float64 = NDArray[np.float64]

BUDGET: dict[str, Any] = {
    "precision": "bf16",
    "pairs": 4,
    "single_share": 0.0,
    "pose_noise_m": 0.0,
    "pose_noise_deg": 0.0,
}
"""Of every arm, where it differs from the defaults."""
SIZES: dict[str, dict[str, Any]] = {
    "small": {"cloud": {"type": "cloud", "points": 2048, "candidates": 512}, "seeds": 128},
    "full": {},
    "reference": {name: getattr(GraspConfig(), name) for name in BUDGET if name != "precision"},
}
"""Half of the points of a view, candidates and seeds; as `limpet train grasp` has them; and as the
reference bundle was trained, by 3,000 steps, with views left out and more error in poses."""
_TOLD = {"type": "cloud", "register_views": False}
ARMS: dict[str, dict[str, Any]] = {
    "two": {},
    "one": {"input": "one"},
    "prefusion": {"input": "prefused", "cloud": _TOLD},
    "prefusion_registered": {"input": "prefused"},
    "two_unregistered": {"cloud": _TOLD},
    "no_con": {"contrast": False},
    "no_dis": {"dissimilar": False},
    "no_losses": {"contrast": False, "dissimilar": False},
    "no_simali": {"sim_ali": False},
    "no_cylreg": {"cyl_reg": False},
    "no_altatt": {"alt_att": False},
}
"""What differs in each."""
HEADLINE = ("two", "one", "prefusion")
"""These have all the seeds."""
OTHERS = [arm for arm in ARMS if arm not in HEADLINE]
CONTROLS = ("antipodal_two", "antipodal_one")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One trained network, or a control, judged.

    Attributes:
        arm: Which.
        seed: Of its training; 0 for a control.
        pose_error: What the scenes' error of camera poses was multiplied by.
        splits: Its figures.
    """

    arm: str
    seed: int
    pose_error: float
    splits: dict[str, SplitFigures]

    def values(self, of: str = "view_ap") -> Float64:
        """AP of each view of all splits, or whether it is a corner. (w,)"""
        each: list[float] = []
        for split in self.splits.values():
            (figures,) = split.arms.values()
            each += figures.view_ap if of == "view_ap" else split.corners
        return np.asarray(each, np.float64)

    def mean(self, name: str) -> float:
        """A figure's mean over the splits."""
        figures = [next(iter(split.arms.values())) for split in self.splits.values()]
        return float(np.mean([getattr(one, name) for one in figures]))


class Bench:
    """Trains and judges, or reads what was.

    Args:
        options: The command line's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._data: Path = options.data
        self._cache: Path = options.cache
        self._steps: int = options.steps
        self._size: str = options.size
        self._views: int = options.views
        self._splits: list[str] = options.splits

    def run_of(self, arm: str, seed: int) -> Path:
        """Where an arm's RUN is."""
        return self._cache / f"{arm}-{self._size}-{self._steps}-{seed}"

    def trained(self, arm: str, seed: int) -> Path:
        """An arm's finished RUN."""
        run = self.run_of(arm, seed)
        size, change = SIZES[self._size], ARMS[arm]
        changes = {**BUDGET, **size, "steps": self._steps, "seed": seed, **change}
        if "cloud" in change:
            changes["cloud"] = {**size.get("cloud", {}), **change["cloud"]}
        config = msgspec.convert(changes, GraspConfig)
        begun = (run / RECORD).exists()
        if begun and RunFolder(run).read().complete:
            return run
        train_grasp(
            self._data, run, config, resume=begun, command="python -m tests.benchmarks.grasp_arms"
        )
        return run

    def done(self, arm: str, seed: int, pose_error: float = 1.0) -> Done:
        """Figures of an arm."""
        judged = "-".join([*self._splits, str(self._views), f"{pose_error:g}"])
        file = self._cache / f"{self.run_of(arm, seed).name}-{judged}.json"
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=Done)
        # A control needs a model for its way of preprocessing alone.
        model = self.trained("two" if arm in CONTROLS else arm, seed)
        found = evaluate_grasp(
            model,
            self._data,
            splits=self._splits,
            views=self._views,
            arms=[_input(arm)],
            pose_error=pose_error,
        )
        done = Done(arm=arm, seed=seed, pose_error=pose_error, splits=found.splits)
        write_json(file, done)
        return done


def _input(arm: str) -> str:
    """What an arm is judged on, as `limpet evaluate grasp --arms` calls it.

    A RUN that was trained on merged clouds merges what it is given itself.
    """
    return arm if arm in ("one", *CONTROLS) else "two"


def jobs(arms: list[str], seeds: list[int]) -> Iterator[tuple[str, int]]:
    """Arms in the order in which they tell most: the first seed, ablations, more seeds."""
    for arm in arms:
        yield arm, seeds[0]
    for seed in seeds[1:]:
        for arm in HEADLINE:
            if arm in arms:
                yield arm, seed


def summary(dones: list[Done]) -> list[dict[str, Any]]:
    """A row for each arm."""
    by_arm: dict[str, list[Done]] = {}
    for done in dones:
        by_arm.setdefault(done.arm, []).append(done)
    rows = []
    for arm, each in by_arm.items():
        values = np.stack([one.values() for one in each])  # (s, w)
        corner = each[0].values("corner") > 0
        aps = values.mean(1)
        row: dict[str, Any] = {
            "arm": arm,
            "changes": ARMS.get(arm, {}),
            "seeds": [one.seed for one in each],
            "views": values.shape[1],
            "ap": float(aps.mean()),
            "ap_of_seeds": aps.tolist(),
            "ap_spread": float(aps.std(ddof=1)) if len(aps) > 1 else None,
            "ap_08": float(np.mean([one.mean("ap_08") for one in each])),
            "ap_04": float(np.mean([one.mean("ap_04") for one in each])),
            "splits": {
                name: float(np.mean([next(iter(one.splits[name].arms.values())).ap
                                     for one in each]))
                for name in each[0].splits
            },
            "corner_ap": float(values[:, corner].mean()),
        }  # fmt: skip
        if arm != "two" and "two" in by_arm:
            row |= differences(by_arm["two"], each, corner)
        rows.append(row)
    return rows


def differences(two: list[Done], other: list[Done], corner: NDArray[np.bool_]) -> dict[str, Any]:
    """How much more `two` has, view by view: the means over the seeds of each.

    The same seed is no pair: networks of other parts draw other weights from it.
    """
    ours = np.mean([one.values() for one in two], axis=0)
    theirs = np.mean([one.values() for one in other], axis=0)
    return {
        "two_more": bootstrap(ours - theirs),
        "two_more_in_corners": bootstrap((ours - theirs)[corner]),
    }


def hardest(dones: list[Done]) -> dict[str, Any] | None:
    """The fifth of the views in which one view does worst, as the paper has its hard views.

    Each seed of `one` chooses views, and the other seeds are judged in them: whoever is judged
    where it did worst will do better by chance. None without two seeds.
    """
    one, two = (
        np.stack([done.values() for done in dones if done.arm == arm] or [np.zeros(0)])
        for arm in ("one", "two")
    )  # (s, w) each
    if len(one) < 2 or one.shape[1:] != two.shape[1:]:
        return None
    count = max(1, round(CORNER_SHARE * one.shape[1]))
    chosen = np.argsort(one, axis=1, kind="stable")[:, :count]
    others = [np.delete(one, seed, 0)[:, views].mean() for seed, views in enumerate(chosen)]
    both = [two[:, views].mean() for views in chosen]
    return {
        "views": count,
        "one": float(np.mean(others)),
        "two": float(np.mean(both)),
        "two_more_of_seeds": (np.array(both) - others).tolist(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""

    def more(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return ""
        return f"{row[name].mean:+.1f} ({row[name].low:+.1f} to {row[name].high:+.1f})"

    return format_table(
        ["arm", "seeds", "AP", "spread", "AP0.8", "AP0.4", "corner AP", "two has more",
         "in corners"],
        [
            [row["arm"], str(len(row["seeds"])), f"{row['ap']:.1f}",
             "" if row["ap_spread"] is None else f"{row['ap_spread']:.1f}",
             f"{row['ap_08']:.1f}", f"{row['ap_04']:.1f}", f"{row['corner_ap']:.1f}",
             more(row, "two_more"), more(row, "two_more_in_corners")]
            for row in rows
        ],
    )  # fmt: skip


def names(text: str) -> list[str]:
    """Comma-separated words."""
    return [word for word in text.split(",") if word]


def main() -> None:
    """Trains what is missing, measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--arms", type=names, default=[*HEADLINE, *CONTROLS, *OTHERS])
    parser.add_argument(
        "--seeds",
        type=lambda text: [int(one) for one in names(text)],
        default=[0, 1, 2],
        help="of the first three arms; others take the first",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--views", type=int, default=3, help="of a scene that are judged")
    parser.add_argument("--splits", type=names, default=[*TEST_SPLITS])
    parser.add_argument("--pose-errors", type=lambda text: [float(one) for one in names(text)],
                        default=[], help="times the scenes' own")  # fmt: skip
    options = parser.parse_args()
    unknown = set(options.arms) - {*ARMS, *CONTROLS}
    if unknown:
        parser.error(f"no arm {', '.join(sorted(unknown))}; of {', '.join([*CONTROLS, *ARMS])}")
    options.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    dones: list[Done] = []
    robust: list[dict[str, Any]] = []

    def write() -> None:
        report = {
            "machine": describe_machine(),
            "data": options.data.name,
            "budget": {**BUDGET, **SIZES[options.size], "steps": options.steps},
            "rows": summary(dones),
            "hardest": hardest(dones),
            "pose_errors": robust,
            "views": [[split, *place] for split, figures in dones[0].splits.items()
                      for place in figures.judged],
            "view_ap": {f"{one.arm} {one.seed}": one.values().tolist() for one in dones},
        }  # fmt: skip
        write_json(options.json_file, report)

    with one_thread():
        for arm, seed in jobs(options.arms, options.seeds):
            dones.append(bench.done(arm, seed))
            print(table(summary(dones)), flush=True)
            write()
        for factor in options.pose_errors:
            for arm in ("two", "prefusion", "prefusion_registered", "two_unregistered",
                        "antipodal_two"):  # fmt: skip
                if arm in options.arms:
                    seeds = options.seeds if arm in HEADLINE else options.seeds[:1]
                    (row,) = summary([bench.done(arm, seed, factor) for seed in seeds])
                    robust.append({"pose_error": factor, **row})
                    print(factor, table([row]), flush=True)
                    write()


if __name__ == "__main__":
    main()
