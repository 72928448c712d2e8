"""What GraspNet's public evaluator says of seeded grasps: `graspnet_api_golden.json`.

Meshes, poses and grasps are made here from seeds. The evaluator runs in an environment of its own
(Python 3.10, numpy 1.23.4, open3d, autolab_core 1.1.1, cvxopt, grasp_nms, transforms3d 0.3.1 and
the checkout of graspnetAPI), which reads what this module writes:

    python -m tests.training.grasp.judging.graspnet_api_golden write CASES.npz
    API_PYTHON tests/training/grasp/judging/graspnet_api_golden.py judge CHECKOUT CASES.npz

The second line needs nothing of this package. Its signed distance grids have 90 cells along an
object's longest side, with noise of 2 µm: on exactly flat faces the evaluator's quadratic fit
degenerates and it finds no contact.

Dimension legend: g grasps, n objects.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_suffix(".json")
SEEDS = range(6)
GRASPS = 400


def case(seed: int) -> tuple[list[Any], NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
    """Meshes (vertices, triangles), poses in the camera (n, 4, 4), camera on the table (4, 4) and
    grasps (g, 17) of a seed.
    """
    import open3d as o3d

    from limpet.contracts.grasp_frames import inverse_pose, rotation_of, transform_points
    from tests.training.grasp.layouts import box_mesh, looking_down, standing

    rng = np.random.default_rng(seed)
    create = o3d.geometry.TriangleMesh
    bodies = [
        box_mesh((0.06, 0.03, 0.05)),
        # No edge longer than 4 mm: longer ones are filled with points here, and not there.
        create.create_cylinder(0.025, 0.09, 32, 12).subdivide_midpoint(3),
        create.create_sphere(0.03, 64),
        box_mesh((0.06, 0.04, 0.05)),
        create.create_cylinder(0.02, 0.1, 32, 12).subdivide_midpoint(3),
    ]
    meshes = [(np.asarray(one.vertices).copy(), np.asarray(one.triangles)) for one in bodies]
    meshes[3][0][:, 1] *= 1 + 2 * 0.45 * meshes[3][0][:, 0] / 0.04  # a wedge of slope 0.45
    places = [
        standing(0.025, -0.15), standing(0.045), standing(0.03, 0.12, 0.05),
        standing(0.025, -0.05, 0.15), standing(0.02, 0.1, -0.12),
    ]  # fmt: skip
    places[4][:3, :3] = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])  # lying
    camera = looking_down(0.5, 0.05, 0.3)
    moved = inverse_pose(camera)
    rows = np.zeros((GRASPS, 17))
    for row in rows:
        index = rng.integers(len(meshes))
        vertices = meshes[index][0]
        inside = vertices[rng.integers(len(vertices))] * rng.uniform(0, 0.6)
        centre = transform_points(inside, places[index])
        tilt = rng.normal(0, 0.5, 2) * (rng.random() < 0.5)
        approach = np.array([*tilt, -1]) / np.linalg.norm([*tilt, 1])
        depth = rng.choice([0.01, 0.02, 0.03, 0.04])
        turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        row[:4] = rng.random(), rng.uniform(0.03, 0.11), 0.02, depth
        row[4:13] = (moved[:3, :3] @ rotation_of(approach, turn)).ravel()
        row[13:16] = transform_points(centre - depth * approach, moved)
        row[16] = -1
    # The evaluator's own rows are float32; so are ours on disk.
    return meshes, moved @ np.stack(places), camera, rows.astype(np.float32)


def write(path: Path) -> None:
    """Everything that the evaluator needs."""
    import open3d as o3d

    arrays: dict[str, NDArray[Any]] = {}
    for seed in SEEDS:
        meshes, poses, camera, rows = case(seed)
        arrays |= {f"{seed}_poses": poses, f"{seed}_camera": camera, f"{seed}_rows": rows}
        for index, (vertices, triangles) in enumerate(meshes):
            arrays |= {f"v{index}": vertices, f"t{index}": triangles}
            pitch = np.ptp(vertices, axis=0).max() / 90
            low = vertices.min(0) - 5 * pitch
            cells = np.ceil(np.ptp(vertices, axis=0) / pitch).astype(int) + 10
            grid = np.stack(np.meshgrid(*map(np.arange, cells), indexing="ij"), -1) * pitch + low
            scene = o3d.t.geometry.RaycastingScene()
            scene.add_triangles(
                o3d.core.Tensor.from_numpy(vertices.astype(np.float32)),
                o3d.core.Tensor.from_numpy(triangles.astype(np.uint32)),
            )
            query = o3d.core.Tensor.from_numpy(grid.astype(np.float32))
            distance = scene.compute_signed_distance(query).numpy()
            noise = np.random.default_rng(index).normal(0, 2e-6, distance.shape)
            arrays |= {f"s{index}": distance + noise, f"o{index}": low, f"p{index}": pitch}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def judge(checkout: str, path: Path) -> None:
    """Runs the public evaluator."""
    sys.path.insert(0, checkout)
    from graspnetAPI.grasp import GraspGroup  # type: ignore[import-not-found]
    from graspnetAPI.utils import eval_utils as api  # type: ignore[import-not-found]
    from graspnetAPI.utils.config import get_config  # type: ignore[import-not-found]
    from graspnetAPI.utils.dexnet.grasping.meshpy import (  # type: ignore[import-not-found]
        mesh,
        sdf,
    )

    known, found = np.load(path), {}
    count = len(known["0_poses"])
    models = [api.voxel_sample_points(known[f"v{i}"], 0.008) for i in range(count)]
    solids = [
        api.GraspableObject3D(
            sdf.Sdf3D(known[f"s{i}"], known[f"o{i}"], float(known[f"p{i}"])),
            mesh.Mesh3D(known[f"v{i}"], known[f"t{i}"]),
        )
        for i in range(count)
    ]
    for seed in SEEDS:
        rows = known[f"{seed}_rows"].astype(np.float64)
        rows[:, 1] = np.clip(rows[:, 1], 0, 0.1)
        table = api.create_table_points(1.0, 1.0, 0.05, -0.5, -0.5, -0.05, 0.008)
        table = api.transform_points(table, np.linalg.inv(known[f"{seed}_camera"]))
        listed, scores, hits = api.eval_grasp(
            GraspGroup(rows), models, solids, list(known[f"{seed}_poses"]), get_config(), table
        )
        owner = np.repeat(np.arange(count), [len(one) for one in listed])
        kept, friction, hit = (
            np.concatenate([one for one in part if len(one)]) for part in (listed, scores, hits)
        )
        order = np.argsort(-kept[:, 0])
        index = [int(np.flatnonzero((rows == row).all(1))[0]) for row in kept[order]]
        found[str(seed)] = {
            "rows": index,
            "object": owner[order].tolist(),
            "fails": hit[order].tolist(),
            "friction": np.round(friction[order], 1).tolist(),
        }
    FILE.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        judge(sys.argv[2], Path(sys.argv[3]))
