"""Lanes of a model's worker: what stays in order and runs with items of others."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import pytest

from limpet.runtime.scheduler import MOST_TOGETHER, ModelWorker
from limpet.runtime.turn import OutsideTurn
from tests.runtime.workers import PATIENCE_S, busy, worker


def test_a_batch_takes_one_item_of_each_lane_and_lanes_stay_in_order() -> None:
    batches: list[list[str]] = []
    run = functools.partial(_note, batches)
    with worker() as made, busy(made):
        for item in ("a1", "a2", "b1", "a3", "c1", "b2"):
            assert made.submit_to(item[0], item, 10, run)
        assert made.waiting == 6
    assert batches == [["a1", "b1", "c1"], ["a2", "b2"], ["a3"]]


def _note(batches: list[list[str]], items: Sequence[str]) -> None:
    batches.append(list(items))


def test_a_batch_has_a_limit_and_the_rest_goes_on_after_other_jobs() -> None:
    ran: list[object] = []

    def run(items: Sequence[int]) -> None:
        ran.append(len(items))

    with worker() as made, busy(made):
        for lane in range(MOST_TOGETHER + 5):
            assert made.submit_to(lane, lane, 10, run)
            assert made.submit_to(lane, lane, 10, run)
        made.submit(functools.partial(ran.append, "job"))
    # 69 lanes of two items; those that have more go behind the job.
    assert ran == [MOST_TOGETHER, MOST_TOGETHER, "job", 10]


def test_a_lane_takes_one_place_of_the_queue_and_has_a_limit_of_its_own() -> None:
    batches: list[list[str]] = []
    run = functools.partial(_note, batches)
    with worker(capacity=2) as made:
        with busy(made):
            accepted = [
                made.submit_to(item[0], item, 2, run) for item in ("a1", "a2", "a3", "b1", "c1")
            ]
            assert accepted == [True, True, False, True, False]
            assert not made.submit(lambda: None)
        assert made.stop(PATIENCE_S)
        assert not made.submit_to("d", "d1", 2, run)
    assert batches == [["a1", "b1"], ["a2"]]


def test_jobs_of_higher_priority_leave_the_queue_before_a_batch() -> None:
    ran: list[object] = []
    with worker() as made, busy(made):
        made.submit_to("a", "a", 1, lambda items: ran.append(list(items)))
        made.submit(functools.partial(ran.append, "low"), priority=-1)
        made.submit(functools.partial(ran.append, "high"), priority=1)
    assert ran == ["high", ["a"], "low"]


def test_with_two_threads_a_lane_is_in_one_batch_at_a_time_and_stays_in_order() -> None:
    gates = {"a1": threading.Event(), "b1": threading.Event()}
    started, ran = threading.Semaphore(0), []

    def run(items: Sequence[str]) -> None:
        for item in items:
            started.release()
            if item in gates:
                with OutsideTurn():  # as in an engine
                    assert gates[item].wait(PATIENCE_S)
            ran.append(item)

    made = ModelWorker("test", 10, threads=2)
    for item in ("a1", "b1"):  # a thread each
        made.submit_to(item[0], item, 9, run)
        assert started.acquire(timeout=PATIENCE_S)
    for item in ("a2", "b2", "a3"):
        made.submit_to(item[0], item, 9, run)
    assert made.waiting == 3
    gates["b1"].set()
    assert started.acquire(timeout=PATIENCE_S)  # b2: a is not free
    assert made.waiting == 2
    gates["a1"].set()
    assert made.stop(PATIENCE_S)
    assert ran[0] == "b1"
    assert [item for item in ran if item[0] == "a"] == ["a1", "a2", "a3"]


def test_with_two_threads_jobs_still_run_one_after_another_beside_a_batch() -> None:
    gate, ran = threading.Event(), []
    inside = threading.Semaphore(0)

    def job(name: str) -> None:
        inside.release()
        with OutsideTurn():
            assert gate.wait(PATIENCE_S)
        ran.append(name)

    made = ModelWorker("test", 10, threads=2)
    for name in "xy":
        made.submit(functools.partial(job, name))
    assert inside.acquire(timeout=PATIENCE_S)
    done = threading.Event()
    made.submit_to("a", "a", 1, lambda items: done.set())
    assert done.wait(PATIENCE_S)
    assert not inside.acquire(blocking=False)  # the second job waits for the first
    assert made.waiting == 1
    gate.set()
    assert made.stop(PATIENCE_S)
    assert ran == ["x", "y"]


def test_a_batch_that_raises_is_logged_and_its_lanes_and_jobs_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran: list[object] = []

    def run(items: Sequence[str]) -> None:
        if "bad" in items:
            raise ValueError("a bad batch")
        ran.extend(items)

    def fail() -> None:
        raise ValueError("a bad job")

    with worker() as made:
        with busy(made):
            for item in ("bad", "good"):
                assert made.submit_to("a", item, 9, run)
            assert made.submit(fail)
            assert made.submit(functools.partial(ran.append, "job"))
        assert made.submit_to("a", "later", 9, run)
    assert ran == ["job", "good", "later"]
    assert {str(record.exc_info[1]) for record in caplog.records if record.exc_info} >= {
        "a bad batch",
        "a bad job",
    }


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_stopping_ends_every_thread_once_what_waits_has_run(threads: int) -> None:
    ran: list[int] = []
    made = ModelWorker("test", 100, threads)
    with busy(made):
        for number in range(9):
            assert made.submit(functools.partial(ran.append, number))
        assert not made.stop(0.05)  # the threads that have nothing to do wait for the job
    assert made.stop(PATIENCE_S)
    assert ran == list(range(9))


def test_under_contention_several_threads_lose_no_item_and_keep_every_lane_in_order() -> None:
    lanes, items_each, ran = 20, 150, list[tuple[int, int]]()
    inside = [threading.Lock() for _ in range(lanes)]
    collisions: list[int] = []

    def run(items: Sequence[tuple[int, int]]) -> None:
        for lane, _ in items:
            if not inside[lane].acquire(blocking=False):
                collisions.append(lane)
        with OutsideTurn():  # as in an engine: another thread has the turn meanwhile
            threading.Event().wait(0.0002)
        ran.extend(items)
        for lane, _ in items:
            inside[lane].release()

    made = ModelWorker("test", 100, threads=3)

    def submit(first: int) -> None:
        for number in range(items_each):
            for lane in range(first, lanes, 2):
                while not made.submit_to(lane, (lane, number), 16, run):
                    threading.Event().wait(0.0005)

    submitters = [threading.Thread(target=submit, args=(first,)) for first in range(2)]
    for each in submitters:
        each.start()
    for each in submitters:
        each.join(PATIENCE_S)
    assert made.stop(PATIENCE_S)
    assert not collisions
    for lane in range(lanes):
        assert [number for of, number in ran if of == lane] == list(range(items_each))
