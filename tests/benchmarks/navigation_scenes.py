"""How fast scenes are rendered: RGB, depth, segmentation and LiDAR from the same poses.

    python -m tests.benchmarks.navigation_scenes --data ../shared/data \
        --json tests/benchmarks/results/navigation_scenes.json

Each process renders scenes of its own: `FRAMES` frames of each of `LAYOUTS` layouts, a new pose a
frame, in an appearance with image textures where --data has them, with the sensors' noise. Building
is timed apart: a layout and its geometry once, an appearance of it once each. Frames per CPU second
are beside frames per second, since other work on the machine slows only the latter (mostly).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from limpet.contracts.reports import format_table, write_json
from limpet.runtime.machine import describe_machine
from limpet.training.navigation.appearance import make_appearance
from limpet.training.navigation.camera import Camera, Lidar
from limpet.training.navigation.geometry import SceneGeometry
from limpet.training.navigation.layouts import make_layout
from limpet.training.navigation.painting import PaintedScene, radiance
from limpet.training.navigation.textures import SETS

LAYOUTS, FRAMES, AT_ONCE = 6, 512, 16
STAGES = ("layout", "geometry", "appearance", "painting", "look", "photograph", "sensors")


def render(seed: int, textures: Path | None) -> dict[str, float]:
    """Seconds of each stage of one layout's frames."""
    spent = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[stage] += time.perf_counter() - start

    camera, lidar, rng = Camera(), Lidar(), np.random.default_rng(seed)
    with timed("layout"):
        layout = make_layout(seed)
        space = layout.free_space(0.18)
    with timed("geometry"):
        geometry = SceneGeometry(layout)
        _ = geometry.openness
    with timed("appearance"):
        appearance = make_appearance(SETS[seed % len(SETS)], seed, textures)
    with timed("painting"):
        painted = PaintedScene(appearance, radiance(geometry, appearance))
    labels = geometry.labels
    cpu = time.process_time()
    for _ in range(FRAMES // AT_ONCE):
        places = space.centers(rng.choice(space.cells, AT_ONCE))
        poses = np.column_stack([places, rng.uniform(-math.pi, math.pi, AT_ONCE)])
        with timed("look"):
            seen = geometry.look(poses, camera, lidar, camera.jitter(AT_ONCE, rng))
        with timed("photograph"):
            images = painted.photograph(seen, rng)
        with timed("sensors"):
            scans = lidar.measure(seen.ranges, rng)
            classes = labels[seen.triangles]
    spent["cpu"] = time.process_time() - cpu
    assert images.shape == (AT_ONCE, 128, 128, 3)
    assert seen.depth.shape == classes.shape == (AT_ONCE, 128, 128)
    assert scans.shape == (AT_ONCE, lidar.beams)
    return spent


def work(number: int, textures: Path | None, together: Barrier, results: Any) -> None:
    """One process: warms up, waits for the others, renders its layouts."""
    render(900 + number, textures)
    together.wait()
    rows = [render(1000 + number * LAYOUTS + i, textures) for i in range(LAYOUTS)]
    results.put({stage: sum(row[stage] for row in rows) for stage in (*STAGES, "cpu")})


def measure(processes: int, textures: Path | None) -> dict[str, float]:
    """Frames per second of so many processes together, and a frame's stages in one of them."""
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=work, args=(number, textures, together, results))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    spent = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    frames = FRAMES * LAYOUTS
    per_frame = {s: float(np.mean([row[s] for row in spent])) / frames for s in STAGES[4:]}
    once = {s: float(np.mean([row[s] for row in spent])) / LAYOUTS for s in STAGES[:4]}
    rendering = [sum(row[s] for s in STAGES[4:]) for row in spent]
    return {
        "processes": processes,
        "frames_per_s": sum(frames / seconds for seconds in rendering),
        "frames_per_cpu_s": frames * processes / sum(row["cpu"] for row in spent),
        "frames_per_s_with_building": sum(
            frames / sum(row[stage] for stage in STAGES) for row in spent
        ),
        **{f"{stage}_ms": 1e3 * seconds for stage, seconds in per_frame.items()},
        **{f"{stage}_s": seconds for stage, seconds in once.items()},
    }


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with textures/")
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args()
    textures = None if options.data is None else options.data / "textures"
    rows = [measure(processes, textures) for processes in (1, 2)]
    print(
        format_table(
            [
                "processes",
                "frames/s",
                "a CPU s",
                "with building",
                "ms: look, photograph, sensors",
            ],
            [
                [
                    f"{row['processes']:.0f}",
                    f"{row['frames_per_s']:.0f}",
                    f"{row['frames_per_cpu_s']:.0f}",
                    f"{row['frames_per_s_with_building']:.0f}",
                    f"{row['look_ms']:.2f}, {row['photograph_ms']:.2f}, {row['sensors_ms']:.2f}",
                ]
                for row in rows
            ],
        )
    )
    setting = {
        "image": "128x128", "beams": Lidar().beams, "layouts": LAYOUTS, "frames_a_layout": FRAMES,
        "poses_at_once": AT_ONCE, "textures": textures is not None,
    }  # fmt: skip
    report = {"machine": describe_machine(), "setting": setting, "rows": rows}
    write_json(options.json_file, report)


if __name__ == "__main__":
    main()
