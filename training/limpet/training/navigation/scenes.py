"""Scenes by seed, each part made once and kept while it is in use.

A layout's geometry and its looks are kept apart, so that many appearances share one geometry.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from limpet.training.navigation.appearance import Appearance, make_appearance
from limpet.training.navigation.geometry import SceneGeometry
from limpet.training.navigation.layouts import Layout, make_layout
from limpet.training.navigation.painting import PaintedScene, radiance
from limpet.training.navigation.textures import AppearanceSet


class SceneLibrary:
    """Makes scenes on demand.

    Args:
        textures: Folder of images for appearances; None draws all patterns.
        geometries: Geometries kept, about 35 MB each once painted.
        painted: Painted scenes kept, about 20 MB each.
        threads: Threads that cast rays, 0 for all cores.
        kept: Folder where painted scenes are left for other processes, 17 MB each; it is for one
            choice of textures. None to paint them anew.
    """

    def __init__(
        self,
        textures: Path | str | None = None,
        geometries: int = 16,
        painted: int = 64,
        threads: int = 1,
        kept: Path | None = None,
    ) -> None:
        def geometry(seed: int) -> SceneGeometry:
            return SceneGeometry(self.layout(seed), threads)

        def paint(layout: int, which: AppearanceSet, seed: int) -> PaintedScene:
            geometry, appearance = self.geometry(layout), self.appearance(which, seed)
            if kept is None:
                return PaintedScene(appearance, radiance(geometry, appearance))
            file = kept / f"{which}-{layout}-{seed}.npy"
            if not file.exists():
                half = kept / f".{os.getpid()}-{file.name}"
                np.save(half, radiance(geometry, appearance))
                half.replace(file)
            return PaintedScene(appearance, np.load(file))

        self.layout: Callable[[int], Layout] = lru_cache(1024)(make_layout)
        self.geometry: Callable[[int], SceneGeometry] = lru_cache(geometries)(geometry)
        self.appearance: Callable[[AppearanceSet, int], Appearance] = lru_cache(32)(
            lambda which, seed: make_appearance(which, seed, textures)
        )
        self.painted: Callable[[int, AppearanceSet, int], PaintedScene] = lru_cache(painted)(paint)
