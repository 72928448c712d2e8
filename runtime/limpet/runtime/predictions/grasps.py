"""Grasps of depth images, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts import grasp_model as wire
from limpet.contracts.bundle import Bundle
from limpet.contracts.cameras import Camera, read_camera
from limpet.contracts.clouds import NoGrasp
from limpet.contracts.depth_files import DepthFile, read_depth
from limpet.contracts.errors import DataError, ImplausibleError, UsageError
from limpet.contracts.grasp_frames import rotation_between_rad, transform_points
from limpet.contracts.grasp_model import GraspAnswer, GraspModel
from limpet.contracts.grasps_file import write_grasps
from limpet.contracts.tensors import Array
from limpet.runtime.engines import open_engine
from limpet.runtime.grasp_picture import draw_grasps

REASONS: dict[NoGrasp, str] = {
    "out_of_reach": "nothing is near enough to the camera",
    "empty_table": "nothing stands out of the table",
    "none_holds": "no hypothesis is free of collision with something between the fingers",
}
"""What a named state means."""


class DepthReport(msgspec.Struct, frozen=True, kw_only=True):
    """One view in the report: its file, and its shape (rows and columns, or points and 3)."""

    path: str
    shape: list[int]


class GraspsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `limpet predict --json` writes for a grasp bundle.

    Attributes:
        bundle: The folder, as it was given.
        name: The model's name.
        space_id: The embedding space.
        engine: Engine and device that computed.
        out: The file of rows.
        rows: Its rows.
        hypotheses: Grasps that were looked at.
        free: How many of them fit around what was seen, before those nearly the same went.
        views: Views that showed something to grasp.
        moved_m: How far registering moved the second view's points onto the first's, at the middle
            of what was seen; 0 with one view, or where they were left as they were told.
        turned_deg: How far it turned them.
        nothing: Why there is none, empty where there is one: out_of_reach, empty_table, none_holds.
        prepare_ms: Time from depth to the model's points.
        model_ms: Time in the engine.
        decode_ms: Time from its outputs to rows.
        inputs: Each view.
        picture: The picture, empty where none was asked for.
    """

    bundle: str
    name: str
    space_id: str
    engine: str
    out: str
    rows: int
    hypotheses: int
    free: int
    views: int
    moved_m: float
    turned_deg: float
    nothing: NoGrasp
    prepare_ms: float
    model_ms: float
    decode_ms: float
    inputs: list[DepthReport]
    picture: str = ""


def predict_grasps(
    model: Bundle,
    inputs: Sequence[str],
    out: Path,
    engine: str,
    *,
    camera: Path | None = None,
    picture: Path | None = None,
) -> GraspsReport:
    """Finds grasps in one or two views and writes their rows.

    Args:
        model: A grasp bundle.
        inputs: One or two depth images, or clouds, the reference view first.
        out: The file of rows.
        engine: Name of the engine.
        camera: The camera file; may be left out where the files bring intrinsics, or are clouds.
        picture: PNG of cloud and grasps.

    Raises:
        UsageError: Not one or two inputs, or what they need is missing.
        DataError: A file cannot be read, or holds what cannot be so.
        MissingExtraError: Pillow or matplotlib is needed and not installed.
        EngineError: The engine cannot load the model.
    """
    if len(inputs) not in (1, 2):
        raise UsageError(
            f"{len(inputs)} inputs, wanted one depth image or two",
            "a grasp model looks at one view, or at a reference and an auxiliary view",
        )
    paths = [Path(path) for path in inputs]
    files = [read_depth(path) for path in paths]
    known = None if camera is None else read_camera(camera)
    request = _request(files, known, camera)
    opened = open_engine(model, engine)
    finder = GraspModel(model.manifest, opened.run)
    try:
        answer = finder.infer(request)
    except ImplausibleError as error:
        where = ", ".join(map(str, paths)) + (f" with {camera}" if camera else "")
        raise DataError(f"{where}: {error.message}", error.hint) from error
    moved_m, turned_deg = _moved(answer)
    others = {name: array for name, array in answer.tensors.items() if name != wire.GRASPS}
    write_grasps(out, answer.grasps.rows, others)
    report = GraspsReport(
        bundle=str(model.path),
        name=model.manifest.name,
        space_id=model.manifest.space_id,
        engine=opened.name,
        out=str(out),
        rows=len(answer.grasps.rows),
        hypotheses=answer.grasps.hypotheses,
        free=answer.grasps.free,
        views=answer.grasps.views,
        moved_m=moved_m,
        turned_deg=turned_deg,
        nothing=answer.nothing,
        prepare_ms=answer.prepare_ns / 1e6,
        model_ms=answer.model_ns / 1e6,
        decode_ms=answer.decode_ns / 1e6,
        inputs=[
            DepthReport(path=str(path), shape=list(file.values.shape))
            for path, file in zip(paths, files, strict=True)
        ],
        picture="" if picture is None else str(picture),
    )
    if picture is not None:
        draw_answer(picture, finder, answer, f"{' + '.join(p.name for p in paths)}: {said(report)}")
    return report


def draw_answer(path: Path, model: GraspModel, answer: GraspAnswer, title: str) -> None:
    """Draws what was seen and found.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: The picture cannot be written.
    """
    seen = answer.seen
    points = np.zeros((1, 0, 3), np.float32) if seen.points is None else seen.points
    draw_grasps(
        path,
        answer.views.clouds[0],
        seen.observed,
        points[:, : model.how.candidates].reshape(-1, 3),
        answer.grasps.rows,
        model.decoding.gripper,
        seen.plane,
        title,
    )


def _request(
    files: Sequence[DepthFile], camera: Camera | None, path: Path | None
) -> dict[str, Array]:
    """What a client would send."""
    clouds = [file.is_cloud for file in files]
    if any(clouds) and not all(clouds):
        raise UsageError("a depth image and a cloud", "give two of one kind")
    names = (wire.CLOUD, wire.CLOUD_AUX) if all(clouds) else (wire.DEPTH, wire.DEPTH_AUX)
    request: dict[str, Array] = {
        name: file.values for name, file in zip(names, files, strict=False)
    }
    if len(files) == 2:
        if camera is None or camera.pose_aux_in_ref is None:
            raise UsageError(
                f"two views, and {path or 'no camera file'} does not say how they lie",
                "give --camera FILE with pose_aux_in_ref: p_ref = pose_aux_in_ref · p_aux",
            )
        request[wire.RELATIVE_POSE] = camera.pose_aux_in_ref
    if camera is not None and camera.pose_camera_in_base is not None:
        request[wire.BASE_POSE] = camera.pose_camera_in_base
    if all(clouds):
        return request
    given = [None, None] if camera is None else [camera.intrinsics, camera.intrinsics_aux]
    intrinsics = [
        mine if told is None else told
        for told, mine in zip(given, [file.intrinsics for file in files], strict=False)
    ]
    known = [matrix for matrix in intrinsics if matrix is not None]
    if len(known) < len(files):
        raise UsageError(
            "the depth image brings no intrinsics",
            'give --camera FILE: JSON such as {"intrinsics": [[fx, 0, cx], [0, fy, cy], '
            '[0, 0, 1]], "depth_scale": 0.001}, or GraspNet\'s meta.mat',
        )
    request[wire.INTRINSICS] = np.stack(known)
    if camera is not None and camera.depth_scale is not None:
        request[wire.DEPTH_SCALE] = np.array([camera.depth_scale])
    return request


def _moved(answer: GraspAnswer) -> tuple[float, float]:
    """How far registering moved the second view's points, metres, and turned them, degrees."""
    pose = answer.seen.correction
    if pose is None or not len(answer.seen.observed):
        return 0.0, 0.0
    middle = answer.seen.observed.mean(0, dtype=np.float64)
    moved_m = float(np.linalg.norm(transform_points(middle[None], pose)[0] - middle))
    return moved_m, float(np.rad2deg(rotation_between_rad(np.eye(3), pose[:3, :3])))


def said(report: GraspsReport) -> str:
    """What was found, in a few words."""
    if report.nothing:
        return f"no grasp: {REASONS[report.nothing]}"
    return f"{report.rows} grasps of {report.free} free among {report.hypotheses} hypotheses"


def describe(report: GraspsReport) -> str:
    """The report for people."""
    times = (
        f"{report.prepare_ms:.0f} ms sampling, {report.model_ms:.0f} ms inference, "
        f"{report.decode_ms:.0f} ms decoding"
    )
    lines = [f"{report.out}: {said(report)}, by {report.name} on {report.engine} ({times})"]
    if report.moved_m > 0:
        lines.append(
            f"second view registered with the first: moved by {1e3 * report.moved_m:.1f} mm and "
            f"turned by {report.turned_deg:.2f}°"
        )
    if report.picture:
        lines.append(f"picture: {report.picture}")
    return "\n".join(lines)
