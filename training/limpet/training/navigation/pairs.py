"""Frames for contrastive training: the same pose in several appearances, with LiDAR and goal.

A data set is a folder with `pairs.json` (what it was made with, `PairsConfig` and the textures'
folder) and one npz a layout, `layout-00042.npz`:

    images       uint8 (n, k, H, W, 3), RGB: the k appearances of each pose
    appearances  int32 (n, k): their seeds, within the set
    lidar        float32 (n, B): ranges, m, one scan a pose; beam 0 ahead, then counter-clockwise
    goals        float32 (n, 2): distance (m) and bearing (rad) of a goal, robot frame
    poses        float64 (n, 3): x, y (m), yaw (rad)

Half of the poses lie on short ways to the goal, looking along them more or less, as a driving robot
does; the others are anywhere, looking anywhere.

    python -m limpet.training.navigation.pairs --out DIR [--set encoder] [--layouts 0 100] …

Dimension legend: n poses, k appearances of each, B beams, H rows, W columns.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.errors import UsageError
from limpet.contracts.whole_files import write_whole
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.controllers import plan_way
from limpet.training.navigation.episodes import EpisodeRules, sample_episode
from limpet.training.navigation.robot import Robot, polar
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.textures import SETS, AppearanceSet

POSES_AT_ONCE = 32


class PairsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is collected.

    Attributes:
        which: Whose appearances.
        layouts: Seeds of layouts: first, and one after the last.
        poses: Poses of each layout.
        views: Appearances of each pose.
        appearances: How many appearances the set has; each layout shows some of them.
        seed: Of poses, goals and noise.
        robot, camera, lidar, episodes: As in the environment.
    """

    which: AppearanceSet = "encoder"
    layouts: tuple[int, int] = (0, 100)
    poses: int = 96
    views: int = 4
    appearances: int = 60
    seed: int = 0
    robot: Robot = Robot()
    camera: Camera = Camera()
    lidar: Lidar = Lidar()
    episodes: EpisodeRules = EpisodeRules(nearest_m=0.5, least_detour=1.0)


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """The frames of one layout; the arrays are as this module's head says."""

    images: NDArray[np.uint8]
    appearances: NDArray[np.int32]
    lidar: NDArray[np.float32]
    goals: NDArray[np.float32]
    poses: NDArray[np.float64]


def collect_layout(scenes: SceneLibrary, config: PairsConfig, layout: int) -> Pairs:
    """Frames of one layout: the same for the same configuration."""
    rng = np.random.default_rng([config.seed, layout, SETS.index(config.which)])
    poses, goals = _poses(scenes, config, layout, rng)
    views = rng.choice(config.appearances, config.views, replace=False)
    geometry = scenes.geometry(layout)
    jitter = config.camera.jitter(len(poses), rng)
    size = (config.camera.height, config.camera.width, 3)
    images = np.empty((len(poses), config.views, *size), np.uint8)
    scans = []
    for start in range(0, len(poses), POSES_AT_ONCE):
        part = slice(start, start + POSES_AT_ONCE)
        seen = geometry.look(poses[part], config.camera, config.lidar, jitter[part])
        scans.append(config.lidar.measure(seen.ranges, rng))
        for view, appearance in enumerate(views):
            painted = scenes.painted(layout, config.which, int(appearance))
            images[part, view] = painted.photograph(seen, rng)
    return Pairs(
        images=images,
        appearances=np.tile(views.astype(np.int32), (len(poses), 1)),
        lidar=np.concatenate(scans),
        goals=goals,
        poses=poses,
    )


def _poses(
    scenes: SceneLibrary, config: PairsConfig, number: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    layout, robot = scenes.layout(number), config.robot
    space = layout.free_space(robot.radius_m)
    poses: list[tuple[float, float, float]] = []
    goals: list[tuple[float, float]] = []
    while len(poses) < config.poses:
        episode, _ = sample_episode(layout, space, config.episodes, rng)
        way = plan_way(layout, robot, np.array(episode.start[:2]), episode.goal)
        some = rng.permutation(len(way) - 1)[:4]
        for i in some:
            ahead = way[min(i + 2, len(way) - 1)] - way[i]
            yaw = math.atan2(ahead[1], ahead[0]) + rng.normal(0.0, 0.35)
            poses.append((float(way[i, 0]), float(way[i, 1]), yaw))
        for cell in rng.choice(space.cells, max(1, len(some))):
            x, y = (float(value) for value in space.centers(cell))
            poses.append((x, y, float(rng.uniform(-math.pi, math.pi))))
        goals += [episode.goal] * (len(poses) - len(goals))
    kept = np.array(poses[: config.poses])
    return kept, np.array([polar(p, g) for p, g in zip(kept, goals, strict=False)], np.float32)


def collect(out: Path, config: PairsConfig, textures: Path | None = None) -> list[Path]:
    """Writes a data set; layouts that are there already from the same configuration are kept.

    Raises:
        UsageError: The folder has been begun with another configuration.
    """
    if config.views > config.appearances:
        raise UsageError(f"{config.views} views of each pose, but {config.appearances} appearances")
    out.mkdir(parents=True, exist_ok=True)
    head = {"config": config, "textures": None if textures is None else textures.name}
    text = msgspec.json.format(msgspec.json.encode(head)) + b"\n"
    about = out / "pairs.json"
    if about.exists() and about.read_bytes() != text:
        raise UsageError(f"{about} tells of another configuration", "name another --out")
    write_whole(about, text)
    scenes = SceneLibrary(textures, geometries=1, painted=config.views)
    files = []
    for layout in range(*config.layouts):
        file = out / f"layout-{layout:05}.npz"
        files.append(file)
        if not file.exists():
            buffer = io.BytesIO()
            np.savez(buffer, **msgspec.structs.asdict(collect_layout(scenes, config, layout)))
            write_whole(file, buffer.getvalue())
    return files


def read_pairs(file: Path | str) -> Pairs:
    """Reads one layout's frames."""
    with np.load(file, allow_pickle=False) as found:
        return Pairs(**{name: found[name] for name in Pairs.__struct_fields__})


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--set", "which", type=click.Choice(SETS), default="encoder", show_default=True)
@click.option("--layouts", type=(int, int), default=(0, 100), show_default=True,
              help="Seeds: first, and one after the last.")  # fmt: skip
@click.option("--poses", type=click.IntRange(min=1), default=96, show_default=True)
@click.option("--views", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--textures", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of images for appearances [default: drawn patterns only].")  # fmt: skip
def command(
    out: Path,
    which: AppearanceSet,
    layouts: tuple[int, int],
    poses: int,
    views: int,
    seed: int,
    textures: Path | None,
) -> None:
    """Collects frames of the same poses in different appearances, with LiDAR and goal."""
    config = PairsConfig(which=which, layouts=layouts, poses=poses, views=views, seed=seed)
    files = collect(out, config, textures)
    click.echo(f"{len(files)} layouts of {poses} poses in {views} appearances: {out}")


if __name__ == "__main__":
    command()
