"""A synthetic data set in GraspNet-1Billion's layout.

    python -m limpet.training.grasp.scenes.generate --out ROOT [--train 60] [--seen 6] …

Scene numbers are GraspNet's: 0–89 train, 90–99 validation (train scenes that only choices during
development look at), 100–129 seen, 130–159 similar, 160–189 novel. Splits are written in turn, so
that what is there is useful before all is. A scene that is there is kept; a scene is the same for
its number, whatever else is made, and whoever makes it.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import numpy as np

from limpet.contracts.errors import UsageError
from limpet.contracts.whole_files import write_whole
from limpet.training.grasp.scenes.gripper import DistanceGrid
from limpet.training.grasp.scenes.labels import label_object, surface_points
from limpet.training.grasp.scenes.layout import (
    collision_file,
    grasp_file,
    model_file,
    read_labels,
    scene_folder,
    write_collisions,
    write_labels,
    write_mesh,
    write_scene,
)
from limpet.training.grasp.scenes.objects import Use, make_object, numbers_for
from limpet.training.grasp.scenes.physics import Settled, items_of
from limpet.training.grasp.scenes.rendering import DepthCamera, SceneView, hemisphere
from limpet.training.grasp.scenes.scene_collisions import Obstacle, obstacle_of, scene_collisions
from limpet.training.grasp.scenes.sensor import DepthNoise, PoseError, known_poses, measure
from limpet.training.grasp.scenes.settle import choose_objects, settle

_log = logging.getLogger(__name__)

HEAD = "synthetic.json"


class Split(NamedTuple):
    """Scenes of a split and which objects they show."""

    first: int
    most: int
    use: Use


SPLITS = {
    "train": Split(0, 90, "train"),
    "validation": Split(90, 10, "train"),
    "seen": Split(100, 30, "train"),
    "similar": Split(130, 30, "similar"),
    "novel": Split(160, 30, "novel"),
}


class SyntheticConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a data set is made with.

    Attributes:
        seed: Of clutter, views and noise.
        views: Of each scene.
        camera: Which looks.
        noise: How it errs.
        pose_error: How far cameras' poses, as a robot knows them, are from the truth.
    """

    seed: int = 0
    views: int = 8
    camera: DepthCamera = DepthCamera()
    noise: DepthNoise = DepthNoise()
    pose_error: PoseError = PoseError()


class SceneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one scene took.

    Attributes:
        scene: Its number.
        objects: How many it shows.
        holds: Candidates that hold on their own.
        free: Those of them that are free in the scene.
        settle_s, render_s, collision_s, write_s: Seconds.
        labelled: Objects labelled on the way.
        label_s: Seconds for them.
        candidates: Of them.
    """

    scene: int
    objects: int
    holds: int
    free: int
    settle_s: float
    render_s: float
    collision_s: float
    write_s: float
    labelled: int
    label_s: float
    candidates: int


def use_in(scene: int) -> Use:
    """Which objects a scene may show."""
    for split in SPLITS.values():
        if split.first <= scene < split.first + split.most:
            return split.use
    raise UsageError(f"scene {scene}: wanted 0 to 189")


def settled_scene(scene: int, seed: int = 0) -> Settled:
    """The clutter of a scene: the same for the same number and seed."""
    rng = np.random.default_rng([seed, scene, 1])
    objects = choose_objects(numbers_for(use_in(scene)), rng)
    return settle(objects, int(rng.integers(2**31)))


@lru_cache(maxsize=160)
def _grid(number: int) -> DistanceGrid:
    return DistanceGrid(make_object(number).mesh)


@lru_cache(maxsize=160)
def _obstacle(root: Path, number: int) -> Obstacle:
    return obstacle_of(read_labels(root, number), _grid(number), make_object(number).radius_m)


def label_once(root: Path, number: int) -> int:
    """Writes an object's mesh and labels where they are not there. Candidates labelled, 0 if none.

    Two processes that do so at once write the same bytes.
    """
    if grasp_file(root, number).exists() and model_file(root, number).exists():
        return 0
    mesh = make_object(number).mesh
    labels = label_object(mesh, _grid(number), surface_points(mesh, number))
    write_mesh(root, number, mesh)
    write_labels(root, number, labels)
    return int(labels.friction.size)


def make_scene(root: Path, config: SyntheticConfig, scene: int) -> SceneReport:
    """Settles, looks at, labels and writes one scene."""
    clock = time.perf_counter()

    def lap() -> float:
        nonlocal clock
        before, clock = clock, time.perf_counter()
        return clock - before

    settled = settled_scene(scene, config.seed)
    settle_s = lap()
    counts = [label_once(root, number) for number in settled.objects]
    obstacles = [_obstacle(root, number) for number in settled.objects]
    label_s = lap()
    rng = np.random.default_rng([config.seed, scene, 2])
    cameras = hemisphere(config.views, rng)
    scene_view = SceneView([item.mesh for item in items_of(settled)], settled.poses)
    views = [scene_view.look(config.camera, pose) for pose in cameras]
    depths = [measure(view, config.camera, config.noise, rng) for view in views]
    render_s = lap()
    collisions = scene_collisions(obstacles, settled.poses)
    collision_s = lap()
    write_collisions(root, scene, collisions)
    write_scene(
        root,
        scene,
        settled.objects,
        settled.poses,
        config.camera,
        cameras,
        known_poses(cameras, config.pose_error, np.random.default_rng([config.seed, scene, 3])),
        depths,
        [view.labels for view in views],
    )
    return SceneReport(
        scene=scene,
        objects=len(obstacles),
        holds=sum(len(item.numbers) for item in obstacles),
        free=sum(int((~collision).sum()) for collision in collisions),
        settle_s=settle_s,
        render_s=render_s,
        collision_s=collision_s,
        write_s=lap(),
        labelled=sum(count > 0 for count in counts),
        label_s=label_s,
        candidates=sum(counts),
    )


def in_turn(counts: dict[str, int]) -> list[int]:
    """Scenes of all splits, each split's spread evenly over the whole order.

    Raises:
        UsageError: More scenes than a split has.
    """
    due = []
    for name, count in counts.items():
        first, most, _ = SPLITS[name]
        if count > most:
            raise UsageError(f"{count} {name} scenes: there are at most {most}")
        due += [((k + 0.5) / count, first + k) for k in range(count)]
    return [scene for _, scene in sorted(due)]


def generate(
    root: Path, config: SyntheticConfig, scenes: list[int], workers: int = 1
) -> Iterator[SceneReport]:
    """Makes those scenes that are not there; yields each one's report as it is done.

    Raises:
        UsageError: The folder has been begun with another configuration.
    """
    root.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(config)) + b"\n"
    head = root / HEAD
    if head.exists() and head.read_bytes() != text:
        raise UsageError(f"{head} tells of another configuration", "name another --out")
    write_whole(head, text)
    due = [
        scene
        for scene in scenes
        if not (scene_folder(root, scene).exists() and collision_file(root, scene).exists())
    ]
    if workers == 1:
        for scene in due:
            yield make_scene(root, config, scene)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        yield from pool.imap_unordered(partial(make_scene, root, config), due)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run made.

    Attributes:
        made, kept: Scenes.
        seconds: Wall clock.
        scenes: What each took.
    """

    made: int
    kept: int
    seconds: float
    scenes: list[SceneReport]

    def line(self) -> str:
        """One line for people."""
        rows = self.scenes
        if not rows:
            return f"0 scenes made, {self.kept} kept"
        labelled = sum(row.labelled for row in rows)
        seconds = sum(row.label_s for row in rows)
        each = [sum(getattr(row, f"{name}_s") for row in rows) / len(rows) for name in _PARTS]
        parts = ", ".join(f"{name} {value:.2f}" for name, value in zip(_PARTS, each, strict=True))
        text = (
            f"{self.made} scenes made, {self.kept} kept, {self.seconds:.0f} s; s a scene: {parts}"
        )
        if labelled:
            rate = sum(row.candidates for row in rows) / seconds / 1e6
            text += (
                f"; {labelled} objects, {seconds / labelled:.1f} s each, {rate:.2f} M candidates/s"
            )
        return text


_PARTS = ("settle", "render", "collision", "write")


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--train", default=60, show_default=True, type=click.IntRange(0))
@click.option("--validation", default=6, show_default=True, type=click.IntRange(0))
@click.option("--seen", default=6, show_default=True, type=click.IntRange(0))
@click.option("--similar", default=6, show_default=True, type=click.IntRange(0))
@click.option("--novel", default=6, show_default=True, type=click.IntRange(0))
@click.option("--views", default=8, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")
def command(
    out: Path,
    train: int,
    validation: int,
    seen: int,
    similar: int,
    novel: int,
    views: int,
    seed: int,
    workers: int,
    as_json: bool,
) -> None:
    """Makes table-top scenes with depth, labels and grasps, in GraspNet-1Billion's layout."""
    counts = {
        "train": train, "validation": validation, "seen": seen, "similar": similar, "novel": novel
    }  # fmt: skip
    scenes = in_turn(counts)
    start = time.perf_counter()
    rows: list[SceneReport] = []
    for row in generate(out, SyntheticConfig(seed=seed, views=views), scenes, workers):
        rows.append(row)
        click.echo(
            f"scene {row.scene:04}: {row.objects} objects, {row.free} of {row.holds} grasps free; "
            f"settle {row.settle_s:.1f} s, {row.labelled} objects labelled {row.label_s:.1f} s, "
            f"render {row.render_s:.1f} s, collisions {row.collision_s:.1f} s, "
            f"write {row.write_s:.1f} s",
            err=True,
        )
    summary = Summary(
        made=len(rows),
        kept=len(scenes) - len(rows),
        seconds=time.perf_counter() - start,
        scenes=rows,
    )
    click.echo(msgspec.json.encode(summary).decode() if as_json else summary.line())


if __name__ == "__main__":
    command()
