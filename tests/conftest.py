"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("limpet", deadline=None)
hypothesis.settings.load_profile("limpet")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real recordings: `LIMPET_DATA`, by default `../shared/data`.

    Where it is absent the test skips and says why; with `LIMPET_REQUIRE_DATA=1` or `CI=true`
    it fails, so that continuous integration cannot pass by skipping.
    """
    folder = Path(os.environ.get("LIMPET_DATA") or REPOSITORY.parent / "shared" / "data").resolve()
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    message = f"no recordings in {folder}; set LIMPET_DATA to the folder that has them"
    if os.environ.get("LIMPET_REQUIRE_DATA") == "1" or os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
