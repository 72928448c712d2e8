"""The objects: families, their instances, and which of them a split may use.

24 families with three instances for training (which the seen split shows again) and one kept for
"similar"; 12 families of two instances kept for "novel". An object is the same for its number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from limpet.contracts.errors import DataError
from limpet.training.grasp.scenes import everyday, tools
from limpet.training.grasp.scenes.meshes import Bulk, Mesh, mesh_of
from limpet.training.grasp.scenes.shapes import IDENTITY, Float64, Piece, Solid

Use = Literal["train", "similar", "novel"]
Family = Callable[[np.random.Generator], list[Solid]]

FAMILIES: tuple[Family, ...] = (
    everyday.carton, everyday.can, everyday.bottle, everyday.cup, everyday.bowl, everyday.mug,
    everyday.vase, everyday.knob, everyday.egg, everyday.banana, everyday.cone, everyday.nut,
    everyday.torus, everyday.brick, everyday.tee, everyday.bracket, everyday.profile,
    tools.hammer, tools.screwdriver, tools.spoon, tools.dumbbell, tools.wrench, tools.brush,
    tools.marker,
)  # fmt: skip
NOVEL: tuple[Family, ...] = (
    tools.wine_glass, tools.pliers, tools.key, tools.channel, tools.cross, tools.drill, tools.reel,
    tools.gear, tools.stool, tools.padlock, tools.bulb, tools.duck,
)  # fmt: skip
TRAINED, KEPT, NEW = 3, 1, 2
"""Instances of a family: for training, for "similar"; of a novel family."""

EACH = TRAINED + KEPT
OBJECTS = len(FAMILIES) * EACH + len(NOVEL) * NEW
"""How many objects there are; numbers begin at 0."""


@dataclass(frozen=True)
class GraspObject:
    """One object in its own frame, whose origin is the middle of its bounding box.

    Attributes:
        number: Its identity in labels, 0 to `OBJECTS` - 1.
        family: Name of its family.
        use: Which scenes may show it; "train" objects are in the seen split too.
        mesh: Its surface.
        pieces: Convex pieces for physics.
        bulk: How its volume is spread.
        density: kg/m³, as if its volume were full.
    """

    number: int
    family: str
    use: Use
    mesh: Mesh
    pieces: tuple[Piece, ...]
    bulk: Bulk
    density: float

    @property
    def mass_kg(self) -> float:
        """Mass."""
        return self.bulk.volume_m3 * self.density

    @property
    def radius_m(self) -> float:
        """Farthest vertex from the origin, m."""
        return float(np.linalg.norm(self.mesh.vertices, axis=1).max())


def use_of(number: int) -> Use:
    """Which scenes may show an object.

    Raises:
        DataError: There is no such object.
    """
    if not 0 <= number < OBJECTS:
        raise DataError(f"object {number}: wanted 0 to {OBJECTS - 1}")
    if number >= len(FAMILIES) * EACH:
        return "novel"
    return "train" if number % EACH < TRAINED else "similar"


def numbers_for(use: Use) -> list[int]:
    """All objects of a use."""
    return [number for number in range(OBJECTS) if use_of(number) == use]


def solids_of(number: int) -> tuple[str, list[Solid]]:
    """Family's name and the solids as the family draws them.

    Raises:
        DataError: There is no such object.
    """
    if use_of(number) == "novel":
        family, instance = divmod(number - len(FAMILIES) * EACH, NEW)
        draw, stream = NOVEL[family], len(FAMILIES) + family
    else:
        stream, instance = divmod(number, EACH)
        draw = FAMILIES[stream]
    return draw.__name__, draw(np.random.default_rng([7, stream, instance]))


@lru_cache(maxsize=OBJECTS)
def make_object(number: int) -> GraspObject:
    """An object by its number.

    Raises:
        DataError: There is no such object.
    """
    family, drawn = solids_of(number)
    mesh, bulk = mesh_of(drawn)
    middle: Float64 = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    pieces = [piece for body in drawn for piece in body.moved(IDENTITY, -middle).pieces()]
    return GraspObject(
        number,
        family,
        use_of(number),
        Mesh(mesh.vertices - middle, mesh.triangles),
        tuple(pieces),
        Bulk(bulk.volume_m3, bulk.centroid - middle, bulk.inertia),
        float(np.random.default_rng([11, number]).uniform(250.0, 900.0)),
    )
