"""One library of scenes for all navigation tests: a painted scene takes most of a second."""

from __future__ import annotations

import pytest

from limpet.training.navigation.scenes import SceneLibrary


@pytest.fixture(scope="session")
def scenes() -> SceneLibrary:
    return SceneLibrary()
