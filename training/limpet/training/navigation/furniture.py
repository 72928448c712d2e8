"""Which furniture stands in rooms of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from limpet.training.navigation.fittings import basin, bathtub, floor_lamp, plant, toilet
from limpet.training.navigation.pieces import Piece, Rng
from limpet.training.navigation.plan import RoomKind
from limpet.training.navigation.seating import armchair, bed, coffee_table, desk, rug, sofa, table
from limpet.training.navigation.storage import (
    bookshelf,
    cartons,
    counter,
    rack,
    sideboard,
    wardrobe,
)

Family = Callable[[Rng], Piece]
AT_WALL: Mapping[RoomKind, Sequence[tuple[Family, float]]] = {
    "living room": [(sofa, 1.0), (sideboard, 0.9), (bookshelf, 0.7), (armchair, 0.7),
                    (plant, 0.7), (floor_lamp, 0.7), (desk, 0.25)],
    "bedroom": [(bed, 1.0), (wardrobe, 0.9), (sideboard, 0.4), (armchair, 0.3), (plant, 0.4),
                (floor_lamp, 0.4)],
    "kitchen": [(counter, 1.0), (sideboard, 0.4), (plant, 0.3), (cartons, 0.2)],
    "office": [(desk, 1.0), (desk, 0.6), (bookshelf, 0.8), (wardrobe, 0.4), (plant, 0.6),
               (cartons, 0.2)],
    "meeting room": [(sideboard, 0.8), (plant, 0.7), (bookshelf, 0.3), (floor_lamp, 0.3)],
    "bathroom": [(bathtub, 0.6), (toilet, 0.95), (basin, 0.95), (wardrobe, 0.2)],
    "store": [(rack, 1.0), (rack, 0.7), (cartons, 0.8), (cartons, 0.5), (wardrobe, 0.4)],
    "corridor": [(sideboard, 0.3), (plant, 0.4), (wardrobe, 0.15)],
}  # fmt: skip
"""What stands at the walls of a room of each kind, the largest first, and how likely it is."""
IN_THE_MIDDLE: Mapping[RoomKind, Sequence[tuple[Family, float]]] = {
    "living room": [(rug, 0.8), (coffee_table, 0.7), (table, 0.4)],
    "bedroom": [(rug, 0.6)],
    "kitchen": [(table, 0.7)],
    "office": [(rug, 0.3), (table, 0.25)],
    "meeting room": [(table, 1.0)],
    "store": [(cartons, 0.4)],
}
