"""Image files: which are meant, and that pixels come as they are stored."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limpet.contracts.errors import DataError, MissingExtraError
from limpet.contracts.image_files import image_paths, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_a_folder_s_images_come_in_order_of_name_and_files_as_they_are(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "10.jpeg", "9.png", "notes.txt", "._9.png"):
        (tmp_path / name).write_bytes(b"")
    found = image_paths([tmp_path / "b.png", str(tmp_path)])
    assert [path.name for path in found] == ["b.png", "10.jpeg", "9.png", "a.JPG", "b.png"]


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"")
    for name, message in (("a.bmp", ".bmp is no suffix"), ("b.png", "does not exist"),
                          (".", "holds no image")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            image_paths([tmp_path / name])


def test_pixels_are_rgb_as_they_are_stored(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "rgb.png")
    assert (read_image(tmp_path / "rgb.png") == PIXELS).all()
    alpha = np.concatenate([PIXELS, np.full((20, 30, 1), 7, np.uint8)], axis=2)
    Image.fromarray(alpha).save(tmp_path / "rgba.png")
    assert (read_image(tmp_path / "rgba.png") == PIXELS).all()
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == PIXELS[..., :1]).all()
    turned = Image.fromarray(PIXELS)
    exif = turned.getexif()
    exif[0x0112] = 6  # orientation: to be shown turned by 90°
    turned.save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == PIXELS).all()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: not an image that can be read"):
        read_image(tmp_path / "a.png")


def test_more_than_eight_bits_are_refused_rather_than_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 3000, np.uint16)).save(tmp_path / "depth.png")
    with pytest.raises(DataError, match="wanted 8 bits a channel"):
        read_image(tmp_path / "depth.png")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without_pillow(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("PIL"):
            raise ModuleNotFoundError("no PIL", name="PIL")
        return whole(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingExtraError, match="Pillow") as caught:
        read_image(tmp_path / "a.png")
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install 'limpet[images]'")
