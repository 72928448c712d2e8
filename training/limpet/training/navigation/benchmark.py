"""How fast scenes are rendered: RGB, depth, segmentation and LiDAR from the same poses.

Each process renders layouts of its own, a new pose a frame, with the sensors' noise. Building is
timed apart: a layout and its geometry once, an appearance of it once. Frames per CPU second are
beside frames per second, since other work on the machine slows only the latter (mostly).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from typing import Any

import msgspec
import numpy as np
import open3d

from limpet.contracts.errors import DataError
from limpet.contracts.reports import format_table
from limpet.training.navigation.appearance import make_appearance
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.geometry import SceneGeometry
from limpet.training.navigation.layouts import make_layout
from limpet.training.navigation.painting import PaintedScene, radiance
from limpet.training.navigation.robot import Robot
from limpet.training.navigation.textures import SETS, texture_files

AT_ONCE = 16
"""Poses that are looked from together."""
BUILDING = ("layout", "geometry", "appearance", "painting")
RENDERING = ("look", "photograph", "sensors")
WARM_UP, FIRST = 900, 1000
"""Seeds of layouts."""
Spent = dict[str, float]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What each process renders.

    Attributes:
        layouts: How many, one appearance each.
        frames: Of each layout; a multiple of `AT_ONCE` is rendered, rounded up.
        camera, lidar: What looks.
        textures: Whether some surfaces show images.
    """

    layouts: int
    frames: int
    camera: Camera = Camera()
    lidar: Lidar = Lidar()
    textures: bool = False

    @property
    def rendered(self) -> int:
        """Frames of a process."""
        return self.layouts * AT_ONCE * -(-self.frames // AT_ONCE)


class SceneSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What so many processes did together.

    Attributes:
        processes: How many.
        frames_per_s: All of them, rendering alone.
        frames_per_cpu_s: One of them, by the time that its CPU worked.
        frames_per_s_with_building: All of them, scenes built included.
        frame_ms: Wall time of a frame's stages: rays cast, developed, LiDAR and labels.
        building_s: Wall time of a layout, its geometry, an appearance, painting it.
    """

    processes: int
    frames_per_s: float
    frames_per_cpu_s: float
    frames_per_s_with_building: float
    frame_ms: dict[str, float]
    building_s: dict[str, float]


class SceneBenchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet bench scenes --json` writes."""

    machine: dict[str, str | float]
    setting: Setting
    rows: list[SceneSpeed]


def bench_scenes(
    setting: Setting,
    processes: Sequence[int],
    textures: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> SceneBenchmark:
    """Renders with each number of processes.

    Raises:
        DataError: Too few textures, or a process ended before it was done.
    """
    if textures is not None:
        for which in SETS:
            texture_files(textures, which)
    machine: dict[str, str | float] = {
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "load": os.getloadavg()[0],
        "open3d": open3d.__version__,
        "numpy": np.__version__,
    }
    rows = []
    for number in processes:
        report(f"rendering in {number} process{'es' if number > 1 else ''}")
        rows.append(_measure(number, setting, textures))
    return SceneBenchmark(machine=machine, setting=setting, rows=rows)


def describe(benchmark: SceneBenchmark) -> str:
    """The figures as a table."""
    names = ["processes", "frames/s", "a CPU s", "with building", f"ms: {', '.join(RENDERING)}"]
    return format_table(
        names,
        [
            [
                str(row.processes),
                f"{row.frames_per_s:.0f}",
                f"{row.frames_per_cpu_s:.0f}",
                f"{row.frames_per_s_with_building:.0f}",
                ", ".join(f"{row.frame_ms[stage]:.2f}" for stage in RENDERING),
            ]
            for row in benchmark.rows
        ],
    )


def _measure(processes: int, setting: Setting, textures: Path | None) -> SceneSpeed:
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(
            target=_work, args=(number, setting, textures, together, results), daemon=True
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    spent: list[Spent] = []
    while len(spent) < processes:
        try:
            spent.append(results.get(timeout=1.0))
        except Empty:
            if failed := [worker.exitcode for worker in workers if worker.exitcode]:
                for worker in workers:
                    worker.terminate()
                raise DataError(
                    f"a process that renders ended with code {failed[0]}", "see what it said above"
                ) from None
    for worker in workers:
        worker.join()
    frames = setting.rendered

    def mean(stage: str) -> float:
        return float(np.mean([row[stage] for row in spent]))

    return SceneSpeed(
        processes=processes,
        frames_per_s=sum(frames / _sum(row, RENDERING) for row in spent),
        frames_per_cpu_s=frames * processes / sum(row["cpu"] for row in spent),
        frames_per_s_with_building=sum(frames / _sum(row, BUILDING + RENDERING) for row in spent),
        frame_ms={stage: 1e3 * mean(stage) / frames for stage in RENDERING},
        building_s={stage: mean(stage) / setting.layouts for stage in BUILDING},
    )


def _sum(row: Spent, stages: Sequence[str]) -> float:
    return sum(row[stage] for stage in stages)


def _work(
    number: int, setting: Setting, textures: Path | None, together: Barrier, results: Any
) -> None:
    """One process: warms up, waits for the others, renders its layouts."""
    _render(WARM_UP + number, msgspec.structs.replace(setting, frames=AT_ONCE), textures)
    together.wait()
    first = FIRST + number * setting.layouts
    rows = [_render(first + i, setting, textures) for i in range(setting.layouts)]
    results.put({stage: sum(row[stage] for row in rows) for stage in rows[0]})


def _render(seed: int, setting: Setting, textures: Path | None) -> Spent:
    """Seconds of each stage of one layout's frames."""
    spent = dict.fromkeys(BUILDING + RENDERING, 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[stage] += time.perf_counter() - start

    camera, lidar, rng = setting.camera, setting.lidar, np.random.default_rng(seed)
    with timed("layout"):
        layout = make_layout(seed)
        space = layout.free_space(Robot().radius_m)
    with timed("geometry"):
        geometry = SceneGeometry(layout)
        _ = geometry.openness
    with timed("appearance"):
        appearance = make_appearance(SETS[seed % len(SETS)], seed, textures)
    with timed("painting"):
        painted = PaintedScene(appearance, radiance(geometry, appearance))
    labels = geometry.labels
    cpu = time.process_time()
    for _ in range(-(-setting.frames // AT_ONCE)):
        places = space.centers(rng.choice(space.cells, AT_ONCE))
        poses = np.column_stack([places, rng.uniform(-math.pi, math.pi, AT_ONCE)])
        with timed("look"):
            seen = geometry.look(poses, camera, lidar, camera.jitter(AT_ONCE, rng))
        with timed("photograph"):
            painted.photograph(seen, rng)
        with timed("sensors"):
            lidar.measure(seen.ranges, rng)
            labels.take(seen.triangles)
    spent["cpu"] = time.process_time() - cpu
    return spent
