"""Depth cameras: what their files say, whether it can be so, and from depth to points.

A camera's frame has x right, y down and z along the optical axis; a pixel's centre is at its index.

Dimension legend: H rows, W columns of a depth image; n points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from limpet.contracts.array_files import undamaged
from limpet.contracts.errors import Cause, DataError, ImplausibleError
from limpet.contracts.mat_format import read_variables

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

OFF_CENTRE = 0.15
"""How far a principal point may lie from the image's centre, of its size. Real lenses stay within
0.03; the intrinsics of 848 × 480 are 0.16 off on 640 × 480, those of 640 × 480 on 1280 × 720 0.25.
"""
FIELD_OF_VIEW_DEG = 15.0, 130.0
"""Horizontal fields of view that depth cameras have, with room."""
OBLONG = 1.2
"""Most that one focal length may be of the other: pixels are square, nearly."""
ORTHONORMAL_WITHIN = 1e-3
"""How far a rotation's product with its transpose may be from the identity: numbers rounded to
four decimals pass."""
FARTHEST_VIEW_M = 5.0
"""Farthest that two cameras which see one table may be apart."""
FARTHEST_BASE_M = 20.0
"""Farthest that a camera may be from the base of its robot."""
NEAREST_M, FARTHEST_M = 0.02, 20.0
"""Medians of a depth image beyond which its unit must be wrong: no depth camera for tables sees
nearer or farther."""
FLYING_M = 0.03
"""Step of depth between neighbours in which a pixel between them belongs to neither."""

Matrix = list[list[float]]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """What is known of one depth camera, or of two views.

    Attributes:
        intrinsics: Of the reference view, pixels. (3, 3)
        intrinsics_aux: Of the auxiliary view. (3, 3)
        depth_scale: Metres of one unit of depth; None: by the image's type.
        pose_aux_in_ref: p_ref = pose · p_aux; None: unknown. (4, 4)
        pose_camera_in_base: Of the reference view; None: unknown. (4, 4)
    """

    intrinsics: Float64
    intrinsics_aux: Float64
    depth_scale: float | None = None
    pose_aux_in_ref: Float64 | None = None
    pose_camera_in_base: Float64 | None = None


class _CameraFile(msgspec.Struct, forbid_unknown_fields=True):
    intrinsics: Matrix
    depth_scale: _Positive | None = None
    intrinsics_aux: Matrix | None = None
    pose_aux_in_ref: Matrix | None = None
    pose_camera_in_base: Matrix | None = None


def read_camera(path: Path) -> Camera:
    """Reads a camera file: JSON, or GraspNet's `meta.mat`.

    JSON has `intrinsics` (3 × 3, pixels) and, where known, `depth_scale` (metres a unit),
    `intrinsics_aux`, `pose_aux_in_ref` and `pose_camera_in_base` (4 × 4, metres). Of a `meta.mat`
    it takes `intrinsic_matrix` and `factor_depth`, whose inverse is the scale.

    Raises:
        DataError: It cannot be read, or something in it has another shape.
    """
    if path.suffix.lower() == ".mat":
        return _read_meta(path)
    with undamaged(path):
        raw = path.read_bytes()
    try:
        found = msgspec.json.decode(raw, type=_CameraFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is no camera file: {error}",
            'wanted JSON such as {"intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], '
            '"depth_scale": 0.001}, or GraspNet\'s meta.mat',
        ) from error
    intrinsics = _matrix(path, "intrinsics", found.intrinsics, 3)
    aux = found.intrinsics_aux
    relative, base = found.pose_aux_in_ref, found.pose_camera_in_base
    return Camera(
        intrinsics=intrinsics,
        intrinsics_aux=intrinsics if aux is None else _matrix(path, "intrinsics_aux", aux, 3),
        depth_scale=found.depth_scale,
        pose_aux_in_ref=None if relative is None else _matrix(path, "pose_aux_in_ref", relative, 4),
        pose_camera_in_base=None if base is None else _matrix(path, "pose_camera_in_base", base, 4),
    )


def _read_meta(path: Path) -> Camera:
    with undamaged(path):
        variables = {v.name: v for v in read_variables(path.read_bytes()) if v.is_numeric}
    matrix, factor = variables.get("intrinsic_matrix"), variables.get("factor_depth")
    if matrix is None or factor is None or matrix.shape != (3, 3) or factor.size != 1:
        raise DataError(
            f"{path} has the variables {', '.join(map(str, variables.values())) or 'none'}",
            "wanted GraspNet's intrinsic_matrix [3, 3] and factor_depth [1, 1]",
        )
    divisor = float(factor.array.item())
    if not 0 < divisor < math.inf:
        raise DataError(f"{path}: factor_depth is {divisor:g}, wanted a number above 0")
    intrinsics = matrix.array.astype(np.float64)
    return Camera(intrinsics=intrinsics, intrinsics_aux=intrinsics, depth_scale=1 / divisor)


def _matrix(path: Path, name: str, rows: Matrix, size: int) -> Float64:
    if len(rows) != size or any(len(row) != size for row in rows):
        raise DataError(
            f"{path}: {name} has rows of {', '.join(str(len(row)) for row in rows) or 'nothing'}, "
            f"wanted {size} × {size} numbers"
        )
    return np.array(rows, np.float64)


def check_intrinsics(matrix: NDArray[Any], width: int, height: int, view: str = "") -> Float64:
    """Intrinsics that can be those of a depth image of this size.

    Args:
        matrix: fx, 0, cx; 0, fy, cy; 0, 0, 1 in pixels. (3, 3)
        width: Of the depth image, pixels.
        height: The same, rows.
        view: Which view, for the message.

    Raises:
        ImplausibleError: `intrinsics`.
    """
    of = f"intrinsics of {view}" if view else "intrinsics"

    def wrong(found: str, hint: str = "give the camera's own matrix for this image") -> Exception:
        return ImplausibleError("intrinsics", f"{of}: {found}", hint)

    k = np.asarray(matrix)
    if k.shape != (3, 3) or k.dtype.kind not in "fiu":
        raise wrong(
            f"found {k.dtype} {list(k.shape)}, wanted numbers [3, 3]",
            "fx, 0, cx; 0, fy, cy; 0, 0, 1 in pixels",
        )
    k = k.astype(np.float64)
    if not np.isfinite(k).all():
        raise wrong("not every entry is a number")
    (fx, skew, cx), (left, fy, cy), last = k.tolist()
    if last != [0.0, 0.0, 1.0] or left != 0.0:
        transposed = k[:, 2].tolist() == [0.0, 0.0, 1.0] and (last[0] > 1 or last[1] > 1)
        raise wrong(
            f"last row {last}, second {[left, fy, cy]}, wanted 0, 0, 1 and 0, fy, cy",
            "it looks transposed" if transposed else "fx, 0, cx; 0, fy, cy; 0, 0, 1 in pixels",
        )
    if not (fx > 0 and fy > 0 and fx / fy <= OBLONG and fy / fx <= OBLONG and abs(skew) < 0.1 * fx):
        raise wrong(
            f"focal lengths {fx:g} and {fy:g} with skew {skew:g}, wanted two above 0 that are "
            "nearly alike, and no skew"
        )
    field = math.degrees(2 * math.atan(width / 2 / fx))
    if not FIELD_OF_VIEW_DEG[0] <= field <= FIELD_OF_VIEW_DEG[1]:
        raise wrong(
            f"a focal length of {fx:g} pixels is a field of view of {field:.3g}° for {width} "
            f"columns, wanted {FIELD_OF_VIEW_DEG[0]:g} to {FIELD_OF_VIEW_DEG[1]:g}",
            "focal lengths are in pixels of this image, not millimetres or shares of its size",
        )
    off = max(abs(cx / width - 0.5), abs(cy / height - 0.5))
    if off > OFF_CENTRE:
        inside = 0 <= cx < width and 0 <= cy < height
        raise wrong(
            f"the principal point ({cx:g}, {cy:g}) is "
            f"{'far from the centre' if inside else 'outside'} of an image of {width} × {height}",
            f"they look like those of about {round(2 * cx)} × {round(2 * cy)} pixels: scale them "
            "to the depth image"
            if cx > 0 and cy > 0
            else "give the camera's own matrix for this image",
        )
    return k


def check_pose(pose: NDArray[Any], name: str, cause: Cause, farthest_m: float) -> Float64:
    """A rigid pose, its rotation made exact.

    Args:
        pose: Rotation and translation, last row 0, 0, 0, 1; metres. (4, 4)
        name: What it is called where it comes from, for the message.
        cause: Names the state.
        farthest_m: Longest translation that can be.

    Raises:
        ImplausibleError: `cause`.
    """
    matrix = np.asarray(pose)
    wanted = "wanted a rotation and a translation in metres, last row 0, 0, 0, 1"
    if matrix.shape != (4, 4) or matrix.dtype.kind not in "fiu":
        raise ImplausibleError(
            cause, f"{name}: found {matrix.dtype} {list(matrix.shape)}, wanted numbers [4, 4]"
        )
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ImplausibleError(cause, f"{name}: not every entry is a number", wanted)
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        last = ", ".join(f"{x:g}" for x in matrix[3])
        hint = "it looks transposed" if np.allclose(matrix[:, 3], [0, 0, 0, 1]) else wanted
        raise ImplausibleError(cause, f"{name}: last row {last}, wanted 0, 0, 0, 1", hint)
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > ORTHONORMAL_WITHIN:
        raise ImplausibleError(
            cause,
            f"{name}: its left upper 3 × 3 is no rotation (its product with its transpose is "
            f"{error:.3g} off the identity)",
            wanted,
        )
    if determinant < 0:
        raise ImplausibleError(
            cause,
            f"{name}: its left upper 3 × 3 is a reflection (determinant {determinant:.3g})",
            "one axis is flipped: both frames are right-handed, x right, y down, z forward",
        )
    distance = float(np.linalg.norm(matrix[:3, 3]))
    if distance > farthest_m:
        raise ImplausibleError(
            cause,
            f"{name}: a translation of {distance:g} m, wanted at most {farthest_m:g}",
            "translations are in metres" + ("; these look like millimetres" * (distance > 50)),
        )
    u, _, vt = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ vt
    return matrix


def metres(depth: NDArray[Any], scale: float | None = None, view: str = "") -> Float32:
    """A depth image in metres, 0 where nothing was measured.

    Args:
        depth: uint16, or float32 or float64 with NaN or 0 where nothing was measured. (H, W)
        scale: Metres of one unit; by default 0.001 for integers and 1 for floats.
        view: Which view, for the message.

    Raises:
        ImplausibleError: `depth_empty`, or `depth_unit` where it is in another unit than said.
    """
    of = f"depth of {view}" if view else "depth"
    if depth.ndim != 2 or depth.dtype.kind not in "uif" or min(depth.shape) < 2:
        raise ImplausibleError(
            "depth_empty",
            f"{of}: found {depth.dtype} {list(depth.shape)}, wanted an image of numbers "
            "[rows, columns]",
        )
    integer = depth.dtype.kind in "ui"
    scale = (0.001 if integer else 1.0) if scale is None else scale
    values: Float32 = np.multiply(depth, np.float32(scale), dtype=np.float32)
    if not integer:
        values = np.where(np.isfinite(values), values, np.float32(0))
    coarse = values[:: max(1, depth.shape[0] // 120), :: max(1, depth.shape[1] // 160)]
    measured = coarse[coarse > 0]
    if not measured.size:
        measured = values[values > 0]
    if not measured.size:
        nothing = "NaN" if not integer and np.isnan(depth).all() else "0, NaN or negative"
        raise ImplausibleError(
            "depth_empty",
            f"{of}: no pixel of {depth.shape[0]} × {depth.shape[1]} was measured, all are "
            f"{'0' if integer else nothing}",
            "look at the camera and its driver",
        )
    check_distance(
        float(np.median(measured)),
        f"{of} with a scale of {scale:g} m a unit",
        "say the scale: depth_scale is 0.001 for millimetres and 1 for metres",
    )
    return values


def check_distance(median_m: float, of: str, hint: str) -> None:
    """Refuses a median distance that no depth camera gives.

    Raises:
        ImplausibleError: `depth_unit`.
    """
    if not NEAREST_M <= median_m <= FARTHEST_M:
        unit = "millimetres given as metres" if median_m > FARTHEST_M else "metres scaled once more"
        raise ImplausibleError(
            "depth_unit",
            f"{of}: a median of {median_m:.3g} m, wanted {NEAREST_M:g} to {FARTHEST_M:g} m; these "
            f"look like {unit}",
            hint,
        )


def stride_for(depth_m: Float32, intrinsics: Float64, spacing_m: float) -> int:
    """Which pixels to take, every how many, for points about that far apart; 1 for all.

    Args:
        depth_m: Depth along the optical axis, 0 where there is none. (H, W)
        intrinsics: Focal lengths and principal point, pixels. (3, 3)
        spacing_m: Wanted distance of neighbours at the median depth.
    """
    coarse = depth_m[::16, ::16]
    measured = coarse[coarse > 0]
    if not measured.size:
        return 1
    return max(1, round(spacing_m * float(intrinsics[0, 0]) / float(np.median(measured))))


def back_project(depth_m: Float32, intrinsics: Float64, stride: int = 1) -> Float32:
    """Points of the pixels that measured something, every `stride`-th row and column of them.

    A pixel whose depth lies between two neighbours far apart in depth mixes both surfaces and is
    left out.

    Returns:
        In the camera's frame, metres. (n, 3)
    """
    z = depth_m[::stride, ::stride]
    keep = z > 0
    for axis in (0, 1):
        keep &= ~_flying(z, axis)
    rows, columns = np.nonzero(keep)
    depth = z[rows, columns]
    points = np.empty((len(depth), 3), np.float32)
    k = intrinsics
    points[:, 0] = depth * ((columns * stride - k[0, 2]) / k[0, 0]).astype(np.float32)
    points[:, 1] = depth * ((rows * stride - k[1, 2]) / k[1, 1]).astype(np.float32)
    points[:, 2] = depth
    return points


def _flying(z: Float32, axis: int) -> NDArray[np.bool_]:
    """Pixels between a near and a far neighbour along an axis, on neither of their surfaces."""
    flying = np.zeros(z.shape, bool)
    a, b, c = (
        z[tuple(slice(start, stop) if i == axis else slice(None) for i in (0, 1))]
        for start, stop in ((None, -2), (1, -1), (2, None))
    )
    inside = tuple(slice(1, -1) if i == axis else slice(None) for i in (0, 1))
    step = np.float32(FLYING_M / 3)
    low, high = np.minimum(a, c), np.maximum(a, c)
    flying[inside] = (low > 0) & (b - low > step) & (high - b > step)
    return flying
