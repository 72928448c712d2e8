"""Photographs: light that behaves like light, and one pose in many appearances."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from limpet.training.navigation.appearance import Photometry, make_appearance
from limpet.training.navigation.camera import Camera
from limpet.training.navigation.geometry import SceneGeometry, Sightings
from limpet.training.navigation.lighting import irradiance
from limpet.training.navigation.painting import PaintedScene, radiance
from limpet.training.navigation.scenes import SceneLibrary

SEED = 3


@pytest.fixture(scope="module")
def seen(scenes: SceneLibrary) -> Sightings:
    space = scenes.layout(SEED).free_space(0.18)
    rng = np.random.default_rng(0)
    places = space.centers(rng.choice(space.cells, 8))
    poses = np.column_stack([places, rng.uniform(-math.pi, math.pi, 8)])
    return scenes.geometry(SEED).look(poses, Camera(width=64, height=64))


def test_one_pose_looks_different_in_each_appearance(scenes: SceneLibrary, seen: Sightings) -> None:
    images = [
        scenes.painted(SEED, which, 0).photograph(seen).astype(float)
        for which in ("encoder", "policy", "test")
    ]
    for image in images:
        assert image.shape == (8, 64, 64, 3)
        assert 40 < image.mean() < 215
        assert image.std(axis=(1, 2)).mean() > 15, "rooms are not plain"
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(images[one] - images[other]).mean() > 12


def test_without_noise_a_photograph_is_the_same_again(
    scenes: SceneLibrary, seen: Sightings
) -> None:
    painted = scenes.painted(SEED, "test", 0)
    assert np.array_equal(painted.photograph(seen), painted.photograph(seen))
    noisy = [painted.photograph(seen, np.random.default_rng(i)) for i in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert np.abs(noisy[0].astype(int) - painted.photograph(seen)).mean() < 12


def test_the_same_scene_painted_anew_is_the_same(scenes: SceneLibrary, seen: Sightings) -> None:
    appearance = make_appearance("test", 0)
    anew = radiance(SceneGeometry(scenes.layout(SEED)), appearance)
    fresh = PaintedScene(appearance, anew)
    assert np.array_equal(fresh.photograph(seen), scenes.painted(SEED, "test", 0).photograph(seen))


def test_kept_scenes_are_read_not_painted_anew(
    scenes: SceneLibrary, seen: Sightings, tmp_path: Path
) -> None:
    for _ in range(2):
        library = SceneLibrary(kept=tmp_path)
        again = library.painted(SEED, "test", 0).photograph(seen)
        assert np.array_equal(again, scenes.painted(SEED, "test", 0).photograph(seen))
    (file,) = tmp_path.iterdir()
    np.save(file, np.zeros_like(np.load(file)))
    assert SceneLibrary(kept=tmp_path).painted(SEED, "test", 0).photograph(seen).max() == 0


def test_more_light_is_more_light_and_furniture_casts_shadows(scenes: SceneLibrary) -> None:
    geometry = scenes.geometry(SEED)
    base = make_appearance("encoder", 0)
    albedo = np.full((len(geometry.luxels[0]), 3), 0.5, np.float32)

    def lit(lamp: float, sky: float) -> np.ndarray:
        lighting = replace(
            base.lighting, lamp_power=lamp, sky_power=sky, sun_power=0.0, pendant=False
        )
        return irradiance(geometry, replace(base, lighting=lighting), albedo)

    dark, lamps, both = lit(0.0, 0.0), lit(1.0, 0.0), lit(1.0, 1.0)
    assert dark.mean() < 0.02
    assert lamps.mean() > 10 * dark.mean()
    assert (both >= lamps - 1e-3).mean() > 0.97
    # Floor below furniture is darker than the open floor.
    patch, place, normal = geometry.luxels
    floor = (place[:, 2] < 0.01) & (normal[:, 2] > 0.9)
    above = geometry.blocked(place[floor], np.array([[0, 0, 1]] * floor.sum(), np.float32), 1.0)
    assert 0.02 < above.mean() < 0.6
    light = lamps[floor].mean(axis=1)
    assert light[above].mean() < 0.6 * light[~above].mean()
    del patch


def test_exposure_vignette_and_balance_do_what_they_say(
    scenes: SceneLibrary, seen: Sightings
) -> None:
    base = make_appearance("policy", 0)
    light = radiance(scenes.geometry(SEED), base)
    plain = Photometry(exposure_ev=0.0, metering=0.9, vignette=0.0, blur=0.0)

    def shot(**changes: object) -> np.ndarray:
        photometry = msgspec.structs.replace(plain, **changes)
        painted = PaintedScene(replace(base, photometry=photometry), light)
        return painted.photograph(seen).astype(float)

    reference = shot()
    assert shot(exposure_ev=1.0).mean() > reference.mean() + 15
    dark = shot(vignette=0.8)
    assert (reference - dark)[:, :8, :8].mean() > (reference - dark)[:, 28:36, 28:36].mean() + 5
    red = shot(balance=(1.5, 1.0, 1.0))
    assert (red - reference)[..., 0].mean() > 8
    np.testing.assert_array_equal(red[..., 1], reference[..., 1])
    smooth = np.abs(np.diff(shot(blur=0.5), axis=2)).mean()
    assert smooth < 0.8 * np.abs(np.diff(reference, axis=2)).mean()
