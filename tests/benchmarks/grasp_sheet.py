"""The contact sheet: what clutter looks like, what the sensor returns, which grasps labels hold.

    python -m tests.benchmarks.grasp_sheet --data ROOT --scenes 0 130 160 162 \
        --out tests/benchmarks/results/grasp_scenes.png

A row is one view of a scene of a data set of `limpet.training.grasp.scenes.generate`. Columns:
shading by normals, the sensor's depth (black: nothing returned), objects, and label grasps at the
lowest frictions, free of collisions: green for μ ≤ 0.4, orange for 0.6, a fork each. Below are
objects, to one scale: blue for training, green "similar", orange "novel".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import open3d as o3d
import scipy.io
from PIL import Image, ImageDraw

from limpet.contracts.grasp_frames import inverse_pose
from limpet.training.grasp.graspnet import TRUE_POSES
from limpet.training.grasp.scenes.gripper import BASE_M, FINGER_M, Grasps
from limpet.training.grasp.scenes.labels import candidates
from limpet.training.grasp.scenes.layout import CAMERA, collision_file, read_labels, scene_folder
from limpet.training.grasp.scenes.lift import read_settled
from limpet.training.grasp.scenes.meshes import Mesh, ray_scene
from limpet.training.grasp.scenes.objects import make_object, numbers_for
from limpet.training.grasp.scenes.rendering import DepthCamera

WIDE, TALL, GAP = 400, 225, 4
FORKS = 8
LIGHT = np.array([0.35, -0.5, 0.8])


def shaded(
    scene: o3d.t.geometry.RaycastingScene, rays: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """Lambert's law, one light; white where nothing is. uint8 (H, W, 3)"""
    hits = scene.cast_rays(o3d.core.Tensor.from_numpy(rays.astype(np.float32)))
    normals, seen = hits["primitive_normals"].numpy(), np.isfinite(hits["t_hit"].numpy())
    facing = np.sign(-(normals * rays[..., 3:]).sum(axis=-1, keepdims=True))
    light = 0.35 + 0.65 * np.clip((normals * facing) @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    ids = np.where(seen, hits["geometry_ids"].numpy(), 0)
    image = colors[ids] * light[..., None]
    return np.where(seen[..., None], 255 * np.clip(image, 0, 1), 255).astype(np.uint8)


def palette(number: int) -> np.ndarray:
    """Table, then objects. (number + 1, 3)"""
    tints = matplotlib.colormaps["tab10"](np.arange(number) % 10)[:, :3]
    return np.concatenate([[[0.82, 0.8, 0.77]], 0.25 + 0.75 * tints])


def far_apart(points: np.ndarray, number: int) -> np.ndarray:
    """Indices of points far from each other, the first one first."""
    kept, nearest = [0], np.full(len(points), np.inf)
    for _ in range(min(number, len(points)) - 1):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[kept[-1]], axis=1))
        kept.append(int(np.argmax(nearest)))
    return np.array(kept)


def forks(grasps: Grasps) -> np.ndarray:
    """Lines of grippers: handle, base, two fingers. (n, 4, 2, 3)"""
    half, depth = grasps.half[:, None], grasps.depth[:, None]

    def at(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        return grasps.origin + x * grasps.approach + y * grasps.closing

    left, right = at(-BASE_M, half), at(-BASE_M, -half)
    handle = np.stack([at(-BASE_M - 4 * FINGER_M, 0.0), at(-BASE_M, 0.0)], axis=1)
    fingers = [np.stack([left, at(depth, half)], 1), np.stack([right, at(depth, -half)], 1)]
    return np.stack([handle, np.stack([left, right], axis=1), *fingers], axis=1)


def draw_forks(
    image: np.ndarray, lines: np.ndarray, intrinsics: np.ndarray, color: str
) -> np.ndarray:
    """Projects lines of the camera's frame. (n, 4, 2, 3)"""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    flat = lines @ intrinsics.T
    for pixels in (flat[..., :2] / flat[..., 2:]).reshape(-1, 2, 2):
        pen.line([tuple(pixel) for pixel in pixels], fill=color, width=3)
    return np.asarray(picture)


def shown(mask: np.ndarray) -> float:
    """How well a view shows a scene: pixels, objects, and what the image's edges cut off."""
    edges = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return float((mask > 0).sum() + 2000 * len(np.unique(mask)) - 400 * (edges > 0).sum())


def row_of(root: Path, scene: int) -> np.ndarray:
    """Four tiles of the view that shows most of the objects and cuts off least."""
    settled = read_settled(root, scene)
    folder = scene_folder(root, scene) / CAMERA
    masks = [np.asarray(Image.open(file)) for file in sorted((folder / "label").iterdir())]
    view = int(np.argmax([shown(mask) for mask in masks]))
    meta = scipy.io.loadmat(folder / "meta" / f"{view:04}.mat")
    intrinsics = meta["intrinsic_matrix"]
    pose = np.load(folder / "cam0_wrt_table.npy") @ np.load(folder / TRUE_POSES)[view]
    h = 1.5
    corners = np.array([[-h, -h, 0.0], [h, -h, 0], [h, h, 0], [-h, h, 0]])
    placed = [Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32))]
    for number, where in zip(settled.objects, settled.poses, strict=True):
        mesh = make_object(number).mesh
        placed.append(Mesh(mesh.vertices @ where[:3, :3].T + where[:3, 3], mesh.triangles))
    picture = shaded(ray_scene(*placed), DepthCamera().rays(pose), palette(len(settled.objects)))
    depth = np.asarray(Image.open(folder / "depth" / f"{view:04}.png")) / 1000
    near, far = np.percentile(depth[masks[view] > 0], [2, 98])
    shades = np.clip((depth - near + 0.05) / (far - near + 0.15), 0, 1)
    colored = 255 * matplotlib.colormaps["viridis_r"](shades)[..., :3] * (depth > 0)[..., None]
    order = {number + 1: k + 1 for k, number in enumerate(settled.objects)}
    ids = np.vectorize(lambda value: order.get(value, 0))(masks[view])
    labels = 255 * palette(len(settled.objects))[ids]
    gripped = picture
    with np.load(collision_file(root, scene)) as collisions:
        for k, number in enumerate(settled.objects):
            label = read_labels(root, number)
            free = ~collisions[f"arr_{k}"]
            for lowest, highest, color in ((6, 6, "#ff8c1a"), (2, 4, "#12a03c")):
                good = free & (label.friction >= lowest) & (label.friction <= highest)
                some = np.flatnonzero(good)
                if len(some) == 0:
                    continue
                grasps = candidates(label.points, some, label.width.ravel()[some])
                grasps = grasps.moved(settled.poses[k]).moved(inverse_pose(pose))
                grasps = grasps[np.flatnonzero(grasps.approach[:, 2] > 0.6)]  # seen from here
                if len(grasps):
                    tips = grasps.origin + grasps.depth[:, None] * grasps.approach
                    kept = grasps[far_apart(tips, FORKS // len(settled.objects) + 1)]
                    gripped = draw_forks(gripped, forks(kept), intrinsics, color)
    tiles = [picture, colored.astype(np.uint8), labels.astype(np.uint8), gripped]
    return joined([np.asarray(Image.fromarray(t).resize((WIDE, TALL))) for t in tiles])


def joined(tiles: list[np.ndarray]) -> np.ndarray:
    """Side by side."""
    padded = [np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles]
    return np.concatenate(padded, axis=1)


def objects_strip() -> np.ndarray:
    """Objects of every use, all to one scale."""
    tile = (4 * WIDE + 3 * GAP) // 16 - GAP
    camera = DepthCamera(width=tile, height=tile, focal_px=2.6 * tile)
    place = np.array([0.3, -0.5, 0.36])
    z = -place / np.linalg.norm(place)
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([x, np.cross(z, x), z], axis=1), place
    numbers = numbers_for("train")[::3] + numbers_for("similar")[::2] + numbers_for("novel")[::2]
    tints = {"train": (0.36, 0.56, 0.85), "similar": (0.4, 0.75, 0.45), "novel": (0.9, 0.55, 0.3)}
    tiles = []
    for number in numbers:  # 24 + 12 + 12
        item = make_object(number)
        colors = np.array([tints[item.use]])
        tiles.append(shaded(ray_scene(item.mesh), camera.rays(pose), colors))
    rows = [joined(tiles[k : k + 16]) for k in (0, 16, 32)]
    return np.concatenate(rows)


def main() -> None:
    """Renders and writes the PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=int, nargs="+", default=[0, 130, 160, 162])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [row_of(options.data, scene) for scene in options.scenes]
    strip = objects_strip()
    width = rows[0].shape[1]
    strip = np.pad(
        strip[:, :width], ((0, 0), (0, max(0, width - strip.shape[1])), (0, 0)), constant_values=255
    )
    sheet = Image.fromarray(np.concatenate([*rows, strip]))
    sheet.quantize(160).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
