"""What a policy remembers: which memory goes with an image, whatever is lost or late."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.runtime.trip_memory import KEPT, TripMemory

MS = 1_000_000


def memory(value: float) -> np.ndarray:
    return np.array([value], np.float32)


def trip() -> TripMemory:
    return TripMemory(step_s=0.1, longest_s=0.5)


def at(kept: TripMemory, captured_ms: int) -> float | None:
    found = kept.before(captured_ms * MS)
    return None if found is None else float(found[0])


@pytest.mark.parametrize("period_ms", [100, 50, 25])
def test_a_memory_goes_with_the_image_a_step_later_however_often_images_come(
    period_ms: int,
) -> None:
    kept = trip()
    for now_ms in range(0, 1000, period_ms):
        wanted = None if now_ms < 75 else pytest.approx(max(0, now_ms - 100) / 1000)
        assert at(kept, now_ms) == wanted
        kept.keep(now_ms * MS, memory(now_ms / 1000))


def test_a_lost_answer_leaves_the_memory_before_it() -> None:
    kept = trip()
    kept.keep(0, memory(0.1))
    kept.keep(100 * MS, memory(0.2))
    assert at(kept, 300) == pytest.approx(0.2)


def test_answers_that_come_in_another_order_are_put_right() -> None:
    kept = trip()
    kept.keep(100 * MS, memory(0.2))
    kept.keep(0, memory(0.1))
    assert at(kept, 200) == pytest.approx(0.2)
    assert at(kept, 120) == pytest.approx(0.1)


def test_after_a_long_silence_the_trip_begins_anew() -> None:
    kept = trip()
    kept.keep(0, memory(0.1))
    assert at(kept, 500) == pytest.approx(0.1)
    assert at(kept, 501) is None


def test_a_new_trip_knows_nothing_of_the_one_before_nor_of_its_late_answers() -> None:
    kept = trip()
    kept.keep(0, memory(0.1))
    kept.begin(100 * MS)
    assert at(kept, 100) is None
    kept.keep(50 * MS, memory(0.2))
    assert at(kept, 150) is None
    kept.keep(100 * MS, memory(0.3))
    assert at(kept, 200) == pytest.approx(0.3)


def test_a_kept_memory_is_the_trip_s_own() -> None:
    kept, buffer = trip(), memory(0.1)
    kept.keep(0, buffer)
    buffer[:] = 0.9
    assert at(kept, 100) == pytest.approx(0.1)


def test_what_is_kept_is_bounded() -> None:
    kept = trip()
    for now_ns in range(10 * KEPT):
        kept.keep(now_ns, memory(0.0))
    assert len(kept._kept) == KEPT
