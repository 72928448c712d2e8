"""Figures of grasps: average precision of each arm in known scenes, observed shares in real ones.

Dimension legend: K = 50 ranks, F = 6 friction coefficients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.clouds import prepare
from limpet.contracts.errors import DataError, ImplausibleError
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.grasps import COLUMNS, decode, hypotheses_of
from limpet.contracts.tensors import Tensors
from limpet.training.grasp.graspnet import Frame, GraspNet
from limpet.training.grasp.judging.average_precision import (
    OUTCOMES,
    Judge,
    average_precision,
)
from limpet.training.grasp.judging.finders import (
    ONE_VIEW,
    Arm,
    Finder,
    Found,
    antipodal_rows,
    foreground,
)
from limpet.training.grasp.judging.observed import ObservedFigures, judge_observed
from limpet.training.grasp.judging.real_scenes import RealScene
from limpet.training.grasp.judging.view_pairs import (
    ViewPair,
    corners,
    view_pairs,
    with_pose_error,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Report = Callable[[str], None]


class CornerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Average precision on the views that see least.

    Attributes:
        views: How many.
        ap, ap_08, ap_04: In percent, over all frictions, at 0.8 and at 0.4.
    """

    views: int
    ap: float
    ap_08: float
    ap_04: float


class LiftFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The best grasp of some views, tried in simulation: closed, lifted, shaken.

    Attributes:
        tried: Views.
        held: How many of them ended with the object in the air.
        success: The share.
        outcomes: How many ended how; `none` had no grasp.
    """

    tried: int
    held: int
    success: float
    outcomes: dict[str, int]


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over views, ms.

    Attributes:
        prepare: Checks, sampling.
        model: The network.
        decode: Grasps, collision checks, suppression.
        total: All of it.
        total_p95: 95th percentile of the sum.
    """

    prepare: float
    model: float
    decode: float
    total: float
    total_p95: float


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How one way to grasps does in a split.

    Attributes:
        views: Views judged.
        without: How many of them had no grasp; they count as 0.
        grasps: Mean number of grasps a view.
        ap, ap_08, ap_04: Average precision in percent.
        view_ap: `ap` of each view, in the order of the split's `judged`.
        outcomes: Shares of what became of the judged grasps: holds, slips, collides, empty.
        corner: The same on the split's corner views.
        lift: The best grasp tried in simulation; None where that was not asked for.
        times_ms: How long it took.
    """

    views: int
    without: int
    grasps: float
    ap: float
    ap_08: float
    ap_04: float
    view_ap: list[float]
    outcomes: dict[str, float]
    corner: CornerFigures
    lift: LiftFigures | None
    times_ms: Times


class SplitFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A split's figures.

    Attributes:
        scenes: Numbers of the scenes.
        views: Views that were judged, each as the reference.
        judged: Scene and number of each.
        corners: Which of them see least.
        arms: Figures of each way.
    """

    scenes: list[int]
    views: int
    judged: list[tuple[int, int]]
    corners: list[bool]
    arms: dict[str, ArmFigures]


class MeanFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Means of an arm over the splits.

    Attributes:
        ap, ap_08, ap_04: Average precision in percent.
        corner_ap: Of the corner views.
        lift_success: Share; NaN where nothing was lifted.
    """

    ap: float
    ap_08: float
    ap_04: float
    corner_ap: float
    lift_success: float


class RealFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A real scene's figures.

    Attributes:
        scene: Its file or folder.
        nothing: Why there is no grasp; empty where there is one.
        before: The model's hypotheses, before it checks any of them for collisions.
        after: The grasps that it gives.
        antipodal: Those of the antipodal sampler.
    """

    scene: str
    nothing: str
    before: ObservedFigures
    after: ObservedFigures
    antipodal: ObservedFigures


@dataclass
class _Tally:
    """What one arm did in the views of a split so far."""

    accuracies: list[Float64] = field(default_factory=list)
    corner: list[Float64] = field(default_factory=list)
    outcomes: list[int] = field(default_factory=list)
    grasps: list[int] = field(default_factory=list)
    times: list[tuple[float, float, float]] = field(default_factory=list)
    lifts: list[str] = field(default_factory=list)

    def figures(self, lifted: bool) -> ArmFigures:
        whole, corner = average_precision(self.accuracies), average_precision(self.corner)
        counts = Counter(self.outcomes)
        judged = max(len(self.outcomes), 1)
        times = np.array(self.times)  # (views, 3)
        total = times.sum(1)
        return ArmFigures(
            views=len(self.accuracies),
            without=self.grasps.count(0),
            grasps=float(np.mean(self.grasps)),
            ap=whole.ap,
            ap_08=whole.ap_08,
            ap_04=whole.ap_04,
            view_ap=[round(100 * float(each.mean()), 3) for each in self.accuracies],
            outcomes={name: counts[index] / judged for index, name in enumerate(OUTCOMES)},
            corner=CornerFigures(
                views=len(self.corner), ap=corner.ap, ap_08=corner.ap_08, ap_04=corner.ap_04
            ),
            lift=self._lift() if lifted else None,
            times_ms=Times(
                prepare=float(np.median(times[:, 0])),
                model=float(np.median(times[:, 1])),
                decode=float(np.median(times[:, 2])),
                total=float(np.median(total)),
                total_p95=float(np.percentile(total, 95)),
            ),
        )

    def _lift(self) -> LiftFigures:
        held = self.lifts.count("held")
        return LiftFigures(
            tried=len(self.lifts),
            held=held,
            success=held / len(self.lifts) if self.lifts else np.nan,
            outcomes=dict(Counter(self.lifts)),
        )


def evaluate_split(
    data: GraspNet,
    scenes: Sequence[int],
    finders: Mapping[Arm, Finder],
    *,
    views: int | None = None,
    lift: int = 0,
    pose_error: float = 1.0,
    report: Report = lambda text: None,
) -> SplitFigures:
    """Judges every arm in the same views.

    Args:
        data: The data set.
        scenes: Numbers of scenes.
        finders: Ways to grasps.
        views: Reference views of each scene, evenly spaced; None is all of them.
        lift: Views, evenly spaced over all, whose best grasp is tried in simulation.
        pose_error: What the error of the known camera poses is multiplied by, where the data has
            one.
        report: Told of the progress.

    Raises:
        DataError: A scene cannot be read, or has one view where an arm needs two, or no physics.
    """
    if lift:
        from limpet.training.grasp.scenes.lift import read_settled

        read_settled(data.root, scenes[0])  # no physics is said at once, not after an hour
    pairs = [pair for scene in scenes for pair in view_pairs(data, scene, views)]
    hard = corners(pairs)
    tried = {index * len(pairs) // lift for index in range(min(lift, len(pairs)))}
    judge = Judge(data)
    tallies = {arm: _Tally() for arm in finders}
    for index, pair in enumerate(pairs):
        frames = [with_pose_error(one, pose_error) for one in _frames(data, pair, finders)]
        for arm, finder in finders.items():
            found = finder(frames[:1] if arm in ONE_VIEW else frames)
            tally = tallies[arm]
            judged = judge.judge(frames[0], found.rows)
            tally.accuracies.append(judged.accuracy())
            if (pair.scene, pair.reference) in hard:
                tally.corner.append(tally.accuracies[-1])
            tally.outcomes += judged.outcome.tolist()
            tally.grasps.append(len(found.rows))
            tally.times.append((found.prepare_ms, found.model_ms, found.decode_ms))
            if index in tried:
                tally.lifts.append(_lift(data, frames[0], found))
        report(f"{index + 1} of {len(pairs)} views")
    return SplitFigures(
        scenes=list(scenes),
        views=len(pairs),
        judged=[(pair.scene, pair.reference) for pair in pairs],
        corners=[(pair.scene, pair.reference) in hard for pair in pairs],
        arms={arm: tally.figures(lifted=lift > 0) for arm, tally in tallies.items()},
    )


def _frames(data: GraspNet, pair: ViewPair, finders: Mapping[Arm, Finder]) -> list[Frame]:
    frames = [data.frame(pair.scene, pair.reference)]
    if pair.auxiliary is not None:
        return [*frames, data.frame(pair.scene, pair.auxiliary)]
    two = [arm for arm in finders if arm not in ONE_VIEW]
    if two:
        raise DataError(
            f"scene {pair.scene} has one view, and {', '.join(two)} need two",
            f"say --arms {','.join(ONE_VIEW)}",
        )
    return frames


def _lift(data: GraspNet, frame: Frame, found: Found) -> str:
    """What became of the best grasp."""
    from limpet.training.grasp.scenes.lift import lift_success, read_settled

    if not len(found.rows):
        return "none"
    settled = read_settled(data.root, frame.scene)
    return lift_success(settled, found.rows[:1], frame.pose_camera_in_table)[0].outcome


def mean_figures(splits: Mapping[str, SplitFigures]) -> dict[str, MeanFigures]:
    """Means over splits of each arm, each split with the same weight."""
    arms = next(iter(splits.values())).arms
    means = {}
    for arm in arms:
        each = [split.arms[arm] for split in splits.values()]
        lifts = [one.lift.success for one in each if one.lift is not None]
        means[arm] = MeanFigures(
            ap=float(np.mean([one.ap for one in each])),
            ap_08=float(np.mean([one.ap_08 for one in each])),
            ap_04=float(np.mean([one.ap_04 for one in each])),
            corner_ap=float(np.mean([one.corner.ap for one in each])),
            lift_success=float(np.mean(lifts)) if lifts else np.nan,
        )
    return means


def evaluate_real(
    model: GraspModel, graph: Callable[[Float32], Tensors], scene: RealScene
) -> RealFigures:
    """Judges a model's grasps in a real scene on what was seen of it.

    Args:
        model: The model, for its preprocessing and decoding.
        graph: Its network: outputs of prepared points (views, N, 3).
        scene: The scene.

    Raises:
        DataError: The scene is none that a model could take.
    """
    try:
        views = model.read(scene.request)
    except ImplausibleError as error:
        raise DataError(f"{scene.path}: {error.message}", error.hint) from error
    seen = prepare(views.clouds, views.poses_in_ref, model.how)
    hypotheses = rows = np.zeros((0, COLUMNS), np.float32)
    nothing: str = seen.nothing
    if seen.points is not None:
        outputs = graph(seen.points)
        hypotheses = hypotheses_of(outputs, model.decoding)
        found = decode(outputs, seen.observed, model.decoding, len(seen.points))
        rows, nothing = found.rows, found.nothing
    target = foreground(seen, model.how) if scene.target is None else scene.target
    return RealFigures(
        scene=str(scene.path),
        nothing=nothing,
        before=judge_observed(hypotheses, seen.observed, target),
        after=judge_observed(rows, seen.observed, target),
        antipodal=judge_observed(antipodal_rows(seen, model.how), seen.observed, target),
    )
