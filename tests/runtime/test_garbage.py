"""Python's cycles are looked for while nobody waits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.runtime.server import GARBAGE_FROM
from tests.runtime.serving import serving, until


class Cycle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def by_itself() -> Iterator[None]:
    """Without Python's own looking."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_idle_server_collects_what_has_piled_up(tmp_path: Path, by_itself: None) -> None:
    with serving(tmp_path, heartbeat_s=0.02):
        lost = weakref.ref(Cycle())
        kept = [Cycle() for _ in range(GARBAGE_FROM)]
        until(lambda: lost() is None)
    assert kept
