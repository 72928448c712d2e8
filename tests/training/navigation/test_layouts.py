"""Layouts: reachable, open, plausible, and the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.training.navigation.camera import Lidar
from limpet.training.navigation.furnishing import LEAST_FREE, ROOMY_RADIUS_M
from limpet.training.navigation.furniture import AT_WALL, IN_THE_MIDDLE
from limpet.training.navigation.layouts import make_layout
from limpet.training.navigation.plan import LEAST_SIDE_M, make_plan
from limpet.training.navigation.solids import Footprints

SEEDS = range(12)
FAMILIES = {
    family for table in (AT_WALL, IN_THE_MIDDLE) for row in table.values() for family, _ in row
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_roomy_robot_reaches_every_room(seed: int) -> None:
    layout = make_layout(seed)
    space = layout.free_space(ROOMY_RADIUS_M)
    centers = space.centers(space.cells)
    for room in layout.plan.rooms:
        x0, y0, x1, y1 = room.inner
        inside = (centers[:, 0] > x0) & (centers[:, 0] < x1)
        inside &= (centers[:, 1] > y0) & (centers[:, 1] < y1)
        cells = (x1 - x0) * (y1 - y0) / 0.1**2
        assert inside.sum() >= 0.9 * LEAST_FREE * cells, room


def test_a_layout_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert make_layout(5).solids == make_layout(5).solids
    assert make_layout(5).plan != make_layout(6).plan


def test_plans_tile_their_rectangle_with_rooms_of_a_plausible_size() -> None:
    for seed in range(100):
        plan = make_plan(np.random.default_rng(seed))
        width, depth = plan.size
        area = sum(w * d for w, d in (room.size for room in plan.rooms))
        assert area == pytest.approx(width * depth)
        assert 2.4 <= plan.height <= 3.1
        sides = [min(room.size) for room in plan.rooms if room.kind != "corridor"]
        assert min(sides) > 0.8 * LEAST_SIDE_M
        assert len(plan.rooms) >= 4


@pytest.mark.parametrize("seed", [910, 2331])
def test_the_widest_passage_in_the_shortest_wall_has_room(seed: int) -> None:
    """There rounding leaves less than no room to move it, which NumPy draws nothing from."""
    layout = make_layout(seed)
    assert any(hole.kind == "passage" for hole in layout.plan.openings)


def test_openings_connect_all_rooms() -> None:
    for seed in range(100):
        plan = make_plan(np.random.default_rng(seed))
        reached, size = {0}, 0
        while len(reached) > size:
            size = len(reached)
            for hole in plan.openings:
                if hole.kind != "window" and reached & {*hole.rooms}:
                    reached |= {*hole.rooms}
        assert reached == {*range(len(plan.rooms))}


def test_there_are_several_kinds_of_rooms_and_furniture() -> None:
    layouts = [make_layout(seed) for seed in SEEDS]
    assert len({room.kind for layout in layouts for room in layout.plan.rooms}) == 8
    assert len({solid.label for layout in layouts for solid in layout.solids}) >= 13


@pytest.mark.parametrize("family", sorted(FAMILIES, key=lambda f: f.__name__))
def test_what_a_robot_would_touch_crosses_the_lidars_plane(family) -> None:  # type: ignore[no-untyped-def]
    plane = Lidar().above_floor_m
    for seed in range(5):
        piece = family(np.random.default_rng(seed))
        seen, touched = [], []
        for solid in piece.solids:
            faces = [*solid.rectangles()]
            heights = [r.origin[2] for r in faces] + [r.origin[2] + r.v[2] for r in faces]
            if solid.footprint() is not None:
                touched.append(solid)
                if min(heights) <= plane <= max(heights):
                    seen.append(solid)
        corners = np.array(
            [r.origin[:2] for solid in touched for r in solid.rectangles() if not r.round]
        )
        if len(corners):  # handles and the like stand out by less than the robot's margin
            assert Footprints.of(seen).clearance(corners).max() < 0.05


def test_furniture_stands_inside_its_building_and_off_the_doors() -> None:
    for seed in SEEDS:
        layout = make_layout(seed)
        width, depth = layout.plan.size
        table = Footprints.of(layout.solids).table
        assert (table[:, :2] > 0).all()
        assert (table[:, 0] < width).all()
        assert (table[:, 1] < depth).all()
        doors = [hole for hole in layout.plan.openings if hole.kind != "window"]
        middles = [
            ((h.start + h.stop) / 2, h.line) if h.axis == 0 else (h.line, (h.start + h.stop) / 2)
            for h in doors
        ]
        assert layout.footprints.clearance(np.array(middles)).min() > ROOMY_RADIUS_M
