"""Appearances: sets that share nothing, and the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limpet.contracts.errors import DataError
from limpet.training.navigation.appearance import make_appearance
from limpet.training.navigation.textures import (
    FAMILIES,
    SETS,
    TILE,
    AppearanceSet,
    read_texture,
    texture_files,
)


def test_sets_share_no_family_of_patterns() -> None:
    families = [family for which in SETS for family in FAMILIES[which]]
    assert len(families) == len({*families}) == 12


def test_sets_share_no_texture_file(data_dir: Path) -> None:
    files = [texture_files(data_dir / "textures", which) for which in SETS]
    assert [len(each) for each in files] == [7, 7, 6]
    assert len({file for each in files for file in each}) == 20
    for which, own in zip(SETS, files, strict=True):
        allowed = {file.name for file in own} | {f.__name__ for f in FAMILIES[which]}
        for seed in range(6):
            sources = make_appearance(which, seed, data_dir / "textures").sources
            assert {*sources} - {"paint", "view"} <= allowed


@pytest.mark.parametrize("which", SETS)
def test_an_appearance_is_the_same_for_a_seed_and_differs_from_others(which: AppearanceSet) -> None:
    one, again, other = (make_appearance(which, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.tiles, again.tiles)
    assert one.lighting == again.lighting
    assert not np.array_equal(one.tiles, other.tiles)
    assert one.photometry != other.photometry
    assert np.array_equal(one.lamps_of(4), again.lamps_of(4))


def test_the_same_seed_in_another_set_is_another_appearance() -> None:
    tiles = [make_appearance(which, 0).tiles for which in SETS]
    assert not np.array_equal(tiles[0], tiles[1])
    assert not np.array_equal(tiles[1], tiles[2])


@pytest.mark.parametrize("which", SETS)
def test_albedo_lies_between_black_and_white(which: AppearanceSet) -> None:
    tiles = make_appearance(which, 3).tiles
    assert tiles.shape[1:] == (TILE, TILE, 3)
    assert tiles.dtype == np.float32
    assert tiles.min() >= 0.0
    assert tiles.max() <= 1.6  # only the view outside is brighter than white


def test_lamps_hang_inside_their_room() -> None:
    appearance = make_appearance("test", 0)
    for room in range(100):
        places = appearance.lamps_of(room)
        assert 1 <= len(places) <= 3
        assert ((places > 0.05) & (places < 0.95)).all()


def test_a_file_is_averaged_in_linear_light_of_its_small_version(tmp_path: Path) -> None:
    Image.fromarray(np.full((256, 512, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    tile = read_texture(tmp_path / "grey.png")
    np.testing.assert_allclose(tile, (128 / 255) ** 2.2, rtol=1e-4)


def test_too_few_or_broken_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 texture images"):
        make_appearance("encoder", 0, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: not an image"):
        read_texture(tmp_path / "broken.png")
