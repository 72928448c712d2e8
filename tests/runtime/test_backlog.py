"""What waits for a model, by a clock of the tests' own: who is answered in time under overload."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from limpet.runtime.backlog import Backlog, Lane, Together, Waiting

MS = 1_000_000
CALL_NS = MS
MAX_AGE_NS = 50 * MS


class Fate(NamedTuple):
    """What became of a request: `result`, `evicted`, `late` or `refused`, and how old it was."""

    client: str
    asked_ns: int
    what: str
    age_ns: int


def call_ns(requests: int) -> int:
    """Of a call of so many: a quarter of what one takes is the call's."""
    return round(CALL_NS * (0.25 + 0.75 * requests))


def simulate(
    asked: Sequence[tuple[int, str]],
    max_age_ns: int | None = MAX_AGE_NS,
    capacity: int = 4096,
    most: int = 1,
) -> list[Fate]:
    """Requests (when, of whom), at most so many at a time through a model: see `call_ns`."""
    backlog = Backlog(capacity)
    fates: list[Fate] = []
    now_ns, free_ns = 0, 0

    def end(client: str, asked_ns: int, what: str, ahead_ns: int = 0) -> None:
        fates.append(Fate(client, asked_ns, what, now_ns + ahead_ns - asked_ns))

    def serve_until(until_ns: float) -> None:
        nonlocal now_ns, free_ns
        while backlog and free_ns <= until_ns:
            now_ns = max(now_ns, free_ns)
            job = backlog.take(now_ns, CALL_NS)
            for late in backlog.late:
                late()
            backlog.late = []
            if job is None:
                return
            assert isinstance(job, Waiting)
            mates = backlog.take_mates(job, now_ns, CALL_NS)
            now_ns = free_ns = now_ns + call_ns(1 + len(mates))
            for result in (job.job, *mates):
                result()

    for asked_ns, client in asked:
        serve_until(asked_ns)
        now_ns = asked_ns
        free_ns = max(free_ns, now_ns)
        tell = functools.partial(functools.partial, end, client, asked_ns)
        due_ns = None if max_age_ns is None else asked_ns + max_age_ns
        result = tell("result")
        together = Together("all", result, most, lambda items: None)
        new = Waiting(
            result, client, 0, due_ns, None, None, tell("evicted"), tell("late"), together
        )
        accepted, dropped = backlog.add(new, now_ns, call_ns(most) / most)
        if dropped is not None:
            dropped()
        if not accepted:
            end(client, asked_ns, "refused")
    serve_until(np.inf)
    assert len(fates) == len(asked), "each has one end"
    return fates


def poisson(rate_hz: float, seconds: float, seed: int = 0) -> NDArray[np.int64]:
    """Times in nanoseconds."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_hz, round(rate_hz * seconds))
    return np.cumsum(gaps).astype(np.int64)


def merged(*asked: tuple[str, NDArray[np.int64]]) -> list[tuple[int, str]]:
    """Requests of several clients in the order of time."""
    return sorted((int(t), client) for client, times in asked for t in times)


def ages_ms(fates: Sequence[Fate], client: str) -> NDArray[np.float64]:
    """Of a client's results."""
    return np.array([f.age_ns / MS for f in fates if (f.client, f.what) == (client, "result")])


@pytest.mark.parametrize("factor", [1.2, 2.0, 5.0])
def test_over_capacity_the_model_is_never_idle_and_no_result_is_too_old(factor: float) -> None:
    fates = simulate(merged(("flood", poisson(1000 * factor, 5.0))))
    ages = ages_ms(fates, "flood")
    assert len(ages) / 5.0 >= 0.97 * 1000, "goodput"
    assert ages.max() <= 50
    # Each waits behind those that came in the time that one may wait, divided by the overload.
    assert np.median(ages) == pytest.approx(50 / factor, rel=0.15)
    late = [fate.age_ns for fate in fates if fate.what == "late"]
    assert len(late) < 0.01 * len(fates)
    assert all(age_ns > MAX_AGE_NS for age_ns in late), "what is said of them"


def test_a_burst_that_can_be_answered_in_time_is_answered_whole() -> None:
    fates = simulate([(0, "a")] * 48)
    assert Counter(fate.what for fate in fates) == {"result": 48}


def test_of_a_burst_that_cannot_the_newest_are_answered() -> None:
    fates = simulate([(number, "a") for number in range(80)])
    results = [fate.asked_ns for fate in fates if fate.what == "result"]
    assert results == [0, *range(81 - len(results), 80)], "the first began before the others came"
    assert 47 <= len(results) <= 50


def test_beside_a_flood_a_client_waits_for_the_one_call_in_flight() -> None:
    good = np.arange(100) * 50 * MS + 123
    fates = simulate(merged(("flood", poisson(3000, 5.0)), ("good", good)))
    ages = ages_ms(fates, "good")
    assert len(ages) == len(good)
    assert ages.max() <= 2 * CALL_NS / MS


def test_a_clients_only_request_is_not_run_with_a_flood_that_would_lengthen_its_call() -> None:
    good = np.arange(100) * 50 * MS + 123
    fates = simulate(merged(("flood", poisson(3000, 5.0)), ("good", good)), most=8)
    ages = ages_ms(fates, "good")
    assert len(ages) == len(good)
    assert ages.max() <= (call_ns(8) + call_ns(1)) / MS, "the one in flight, and its own"
    capacity_per_s = 8e9 / call_ns(8)
    assert len(ages_ms(fates, "flood")) / 5.0 >= 0.97 * (capacity_per_s - 20), "goodput"


def test_clients_that_flood_share_calls_and_so_do_those_with_one_request() -> None:
    asked = [(1, "a"), *[(2, "a"), (2, "b")] * 8]
    ages = [round(fate.age_ns / CALL_NS, 2) for fate in simulate(asked, most=8)]
    assert Counter(ages) == {1.0: 1, 1.0 + 6.25: 8, 1.0 + 2 * 6.25: 8}
    once = [(0, "a"), *[(1, each) for each in "bcdefghi"]]
    ages = [round(fate.age_ns / CALL_NS, 2) for fate in simulate(once, most=8)]
    assert Counter(ages) == {1.0: 1, 1.0 + 6.25: 8}


def test_clients_that_flood_at_different_rates_get_the_same() -> None:
    fates = simulate(
        merged(
            ("more", poisson(3000, 5.0)),
            ("less", poisson(1500, 5.0, 1)),
            ("few", poisson(200, 5.0, 2)),
        )
    )
    got = Counter(fate.client for fate in fates if fate.what == "result")
    assert got["few"] >= 0.98 * 200 * 5
    assert got["more"] == pytest.approx(got["less"], rel=0.05)
    assert got["more"] + got["less"] == pytest.approx(800 * 5, rel=0.03)


def test_the_next_second_after_a_flood_is_as_before() -> None:
    good = np.arange(20) * 50 * MS + 2_000 * MS
    flood = poisson(3000, 2.0)
    fates = simulate(merged(("flood", flood[flood < good[0]]), ("good", good)))
    assert ages_ms(fates, "good")[1:].max() == CALL_NS / MS


def test_without_a_maximum_age_only_a_full_queue_drops_and_it_drops_the_newest() -> None:
    fates = simulate([(number, "a") for number in range(100)], max_age_ns=None, capacity=10)
    kept = [fate.asked_ns for fate in fates if fate.what == "result"]
    assert kept == list(range(11)), "the first began before the others came"
    assert Counter(fate.what for fate in fates) == {"result": 11, "refused": 89}


def waiting(
    name: str, ended: list[str], client: str = "a", due_ms: int | None = None, group: str = ""
) -> Waiting:
    """A job whose end is noted."""

    def note(what: str, _: int = 0) -> None:
        ended.append(f"{name} {what}")

    together = Together(group, name, 4, lambda items: None) if group else None
    due_ns = None if due_ms is None else due_ms * MS
    ends = [functools.partial(note, what) for what in ("ran", "evicted", "late")]
    return Waiting(ends[0], client, 0, due_ns, None, None, ends[1], ends[2], together)


def test_a_patient_request_is_not_dropped_for_an_impatient_one() -> None:
    backlog, ended = Backlog(100), list[str]()
    for number in range(10):
        backlog.add(waiting(f"patient {number}", ended, due_ms=1000), 0, MS)
    accepted, dropped = backlog.add(waiting("hasty", ended, due_ms=2), 0, MS)
    assert (accepted, dropped) == (True, None)
    assert backlog.jobs == 11


def test_the_last_one_is_tried_however_late_it_would_be() -> None:
    backlog, ended = Backlog(100), list[str]()
    backlog.add(waiting("first", ended, due_ms=1), 0, 0)
    backlog.add(waiting("last", ended, due_ms=2), 0, 0)
    job = backlog.take(5 * MS, MS)
    assert isinstance(job, Waiting)
    job.job()
    for late in backlog.late:
        late()
    assert ended == ["last ran", "first late"]
    assert not backlog


def test_turns_of_what_was_too_late_go_to_the_clients_next_requests() -> None:
    backlog, ended = Backlog(100), list[str]()
    for number in range(3):
        backlog.add(waiting(f"late {number}", ended, due_ms=1), 0, 0)
    backlog.add(waiting("fine", ended), 0, 0)
    fine = backlog.take(5 * MS, MS)
    assert isinstance(fine, Waiting)
    fine.job()
    for number in range(3):
        backlog.add(waiting(f"next {number}", ended), 0, 0)
    backlog.add(waiting("other", ended, client="b"), 0, 0)
    assert len(backlog._turns) == len(backlog) == 4, "no more turns than jobs"
    while isinstance(job := backlog.take(5 * MS, MS), Waiting):
        job.job()
    assert ended == ["fine ran", "other ran", "next 0 ran", "next 1 ran", "next 2 ran"]
    assert len(backlog.late) == 3
    assert not backlog._turns
    assert not backlog._lines
    assert not backlog._ranks._clients


def test_those_that_run_together_are_found_behind_others_of_their_client_and_of_lanes() -> None:
    backlog, ended = Backlog(100), list[str]()
    for name, group in (("a1", "x"), ("a2", "y"), ("a3", "x")):
        backlog.add(waiting(name, ended, group=group), 0, 0)
    backlog.add_lane(lane := Lane("lane", lambda items: None, items=[]), 0)  # type: ignore[arg-type]
    backlog.add(waiting("b1", ended, client="b", group="x"), 0, 0)
    backlog.add(waiting("b2", ended, client="b", group="y"), 0, 0)
    backlog.add(waiting("c1", ended, client="c"), 0, 0)
    first = backlog.take(0, 0)
    assert isinstance(first, Waiting)
    assert sorted(backlog.take_mates(first, 0, 0)) == ["a3", "b1"]
    assert (backlog.jobs, backlog.lanes, backlog.waiting_lanes()) == (3, 1, [lane])


def test_a_full_queue_makes_room_for_a_clients_first_and_every_job_has_one_end() -> None:
    rng = np.random.default_rng(3)
    backlog, ended = Backlog(12), list[str]()
    begun = 0
    for number in range(3000):
        client = str(rng.choice(["flood"] * 8 + ["a", "b", "c"]))
        due_ms = None if rng.random() < 0.3 else number // 3 + int(rng.integers(1, 40))
        begun += 1
        new = waiting(f"{number}", ended, client, due_ms)
        accepted, dropped = backlog.add(new, number * MS // 3, MS)
        if dropped is not None:
            dropped()
        if not accepted:
            ended.append(f"{number} refused")
        assert len(backlog) <= 12
        if number % 3 == 0 and isinstance(job := backlog.take(number * MS // 3, MS), Waiting):
            job.job()
        for late in backlog.late:
            late()
        backlog.late = []
    while isinstance(job := backlog.take(0, 0), Waiting):
        job.job()
    assert sorted(int(end.split()[0]) for end in ended) == list(range(begun))
    assert {end.split()[1] for end in ended} == {"ran", "evicted", "late", "refused"}
    assert not list(itertools.chain(backlog._turns, backlog._lines, backlog._ranks._clients))
