"""The worker of a model: order, bounds, replacement, and nothing lost or run twice at a time."""

from __future__ import annotations

import functools
import random
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limpet.runtime.scheduler import INLINE_BUDGET_NS, Mailbox, ModelWorker
from tests.runtime.workers import PATIENCE_S, busy, run_or_submit, worker


def test_jobs_run_in_the_order_in_which_they_came() -> None:
    ran: list[int] = []
    with worker() as made, busy(made):
        for number in range(100):
            assert made.submit(functools.partial(ran.append, number))
        assert made.waiting == 100
        assert not ran
    assert ran == list(range(100))


def test_higher_priorities_leave_the_queue_first() -> None:
    ran: list[str] = []
    with worker() as made, busy(made):
        for name, priority in (("low", -1), ("a", 0), ("high", 7), ("b", 0)):
            made.submit(functools.partial(ran.append, name), priority=priority)
    assert ran == ["high", "a", "b", "low"]


def test_a_full_queue_refuses_a_job_and_never_runs_it() -> None:
    ran: list[int] = []
    with worker(capacity=2) as made:
        with busy(made):
            accepted = [made.submit(functools.partial(ran.append, number)) for number in range(4)]
            assert accepted == [True, True, False, False]
            assert made.waiting == 2
        emptied = threading.Event()
        while not made.submit(emptied.set):  # room again as soon as one has been taken
            pass
        assert emptied.wait(PATIENCE_S)
    assert ran == [0, 1]


def test_a_job_takes_the_place_of_a_waiting_one_with_its_key() -> None:
    ran: list[str] = []
    replaced: list[str] = []
    with worker() as made, busy(made):
        for name, key in (("a1", "a"), ("other", None), ("b1", "b"), ("a2", "a"), ("a3", "a")):
            assert made.submit(
                functools.partial(ran.append, name),
                key=key,
                on_replaced=functools.partial(replaced.append, name),
            )
        assert replaced == ["a1", "a2"], "it is told at once"
        assert made.waiting == 3
    assert ran == ["a3", "other", "b1"]
    assert replaced == ["a1", "a2"]


def test_a_replacement_of_another_priority_waits_where_that_one_belongs() -> None:
    ran: list[str] = []
    with worker() as made, busy(made):
        made.submit(functools.partial(ran.append, "old"), key="a")
        made.submit(functools.partial(ran.append, "other"))
        made.submit(functools.partial(ran.append, "urgent"), priority=1)
        made.submit(functools.partial(ran.append, "new"), key="a", priority=-1)
    assert ran == ["urgent", "other", "new"]


def test_a_full_queue_still_takes_a_replacement() -> None:
    ran: list[str] = []
    with worker(capacity=1) as made, busy(made):
        assert made.submit(functools.partial(ran.append, "old"), key="a")
        assert not made.submit(functools.partial(ran.append, "third"), key="b")
        assert made.submit(functools.partial(ran.append, "new"), key="a")
    assert ran == ["new"]


def test_a_running_job_is_not_replaced() -> None:
    started, gate = threading.Event(), threading.Event()
    ran: list[str] = []
    replaced: list[str] = []

    def running() -> None:
        started.set()
        assert gate.wait(PATIENCE_S)
        ran.append("running")

    with worker() as made:
        made.submit(running, key="a", on_replaced=lambda: replaced.append("running"))
        assert started.wait(PATIENCE_S)
        made.submit(functools.partial(ran.append, "next"), key="a")
        gate.set()
    assert ran == ["running", "next"]
    assert not replaced


def test_a_replaced_job_is_let_go_of_at_once_and_the_queue_does_not_grow() -> None:
    class Frame:
        """As large as a camera's."""

        def use(self) -> None:
            ran.append(self)

    ran: list[Frame] = []
    with worker(capacity=3) as made, busy(made):

        def submit(priority: int) -> weakref.ref[Frame]:
            frame = Frame()
            made.submit(frame.use, key="camera", priority=priority)
            assert made.waiting == 1
            return weakref.ref(frame)

        frames = [submit(number % 2) for number in range(1000)]
        assert [ref() is None for ref in frames] == [True] * 999 + [False]
    assert len(ran) == 1


@settings(max_examples=200)
@given(
    jobs=st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([None, *"abcd"])), max_size=60),
    capacity=st.integers(1, 40),
)
def test_what_runs_and_in_which_order_is_what_a_plain_list_would_say(
    jobs: list[tuple[int, str | None]], capacity: int
) -> None:
    queue: list[tuple[int, int, str | None, int]] = []  # -priority, place, key, number
    expected_refused, expected_replaced = [], []
    ran: list[int] = []
    refused: list[int] = []
    replaced: list[int] = []
    with worker(capacity) as made, busy(made):
        for number, (priority, key) in enumerate(jobs):
            old = next((entry for entry in queue if key is not None and entry[2] == key), None)
            if old is not None:
                queue.remove(old)
                expected_replaced.append(old[3])
                place = old[1] if old[0] == -priority else number
                queue.append((-priority, place, key, number))
            elif len(queue) < capacity:
                queue.append((-priority, number, key, number))
            else:
                expected_refused.append(number)
            if not made.submit(
                functools.partial(ran.append, number),
                priority=priority,
                key=key,
                on_replaced=functools.partial(replaced.append, number),
            ):
                refused.append(number)
            assert made.waiting == len(queue)
    assert ran == [number for *_, number in sorted(queue, key=lambda entry: entry[:2])]
    assert (refused, replaced) == (expected_refused, expected_replaced)


def test_a_short_job_of_an_idle_model_runs_in_the_callers_thread() -> None:
    ran_in: list[threading.Thread] = []
    with worker() as made:
        run_or_submit(made, lambda: ran_in.append(threading.current_thread()), INLINE_BUDGET_NS)
        assert ran_in == [threading.current_thread()]


@pytest.mark.parametrize("cost_ns", [None, INLINE_BUDGET_NS + 1])
def test_a_long_job_or_one_of_unknown_length_runs_in_the_worker(cost_ns: int | None) -> None:
    ran_in: list[threading.Thread] = []
    with worker() as made:
        run_or_submit(made, lambda: ran_in.append(threading.current_thread()), cost_ns)
    assert [thread.name for thread in ran_in] == ["model-test-0"]


def test_a_short_job_waits_for_the_one_that_runs() -> None:
    ran: list[str] = []
    with worker() as made, busy(made):
        run_or_submit(made, functools.partial(ran.append, "short"), 0)
        assert not ran
    assert ran == ["short"]


def test_a_short_job_does_not_overtake_those_that_wait() -> None:
    ran: list[str] = []
    with worker() as made, busy(made):
        made.submit(functools.partial(ran.append, "first"))
        run_or_submit(made, functools.partial(ran.append, "short"), 0)
    assert ran == ["first", "short"]


def test_jobs_of_one_thread_run_in_order_wherever_they_run() -> None:
    ran: list[int] = []
    draw = random.Random(0)
    count = 20_000
    with worker(capacity=count) as made:
        for number in range(count):
            run_or_submit(made, functools.partial(ran.append, number), draw.choice([None, 0]))
    assert ran == list(range(count))


def test_stopping_finishes_what_waits_and_takes_nothing_more() -> None:
    ran: list[int] = []
    made = ModelWorker("test", 10)
    with busy(made):
        for number in range(3):
            made.submit(functools.partial(ran.append, number))
        assert not made.stop(0.0), "it cannot have finished"
        assert not made.submit(functools.partial(ran.append, 3))
        assert not run_or_submit(made, functools.partial(ran.append, 4), 0)
    assert made.stop(PATIENCE_S)
    assert ran == [0, 1, 2]
    assert not run_or_submit(made, functools.partial(ran.append, 5), 0)
    assert ran == [0, 1, 2]


def test_an_idle_worker_stops_at_once() -> None:
    made = ModelWorker("test", 1)
    assert made.stop(PATIENCE_S)


def test_under_contention_no_job_is_lost_or_doubled_and_no_two_run_at_a_time() -> None:
    threads, jobs_each = 4, 3000
    inside = threading.Lock()
    collisions: list[int] = []
    ran: list[tuple[int, int]] = []
    replaced: list[tuple[int, int]] = []
    refused: list[tuple[int, int]] = []
    made = ModelWorker("test", capacity=50)

    def job(name: tuple[int, int]) -> None:
        if not inside.acquire(blocking=False):
            collisions.append(1)
            return
        ran.append(name)
        inside.release()

    def submit(thread: int) -> None:
        draw = random.Random(thread)
        for number in range(jobs_each):
            name = (thread, number)
            accepted = run_or_submit(
                made,
                functools.partial(job, name),
                draw.choice([None, 0]),
                priority=draw.randint(-1, 1),
                key=draw.choice([None, thread, "shared"]),
                on_replaced=functools.partial(replaced.append, name),
            )
            if not accepted:
                refused.append(name)

    submitters = [threading.Thread(target=submit, args=(number,)) for number in range(threads)]
    for each in submitters:
        each.start()
    for each in submitters:
        each.join(PATIENCE_S)
    assert made.stop(PATIENCE_S)
    assert not collisions
    assert sorted(ran + replaced + refused) == [
        (thread, number) for thread in range(threads) for number in range(jobs_each)
    ]


def test_a_mailbox_runs_what_threads_leave_in_order_and_wakes_for_each() -> None:
    wakes: list[int] = []
    ran: list[tuple[int, int]] = []
    mailbox = Mailbox(lambda: wakes.append(1))

    def leave(thread: int) -> None:
        for number in range(500):
            mailbox.put(functools.partial(ran.append, (thread, number)))

    threads = [threading.Thread(target=leave, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        mailbox.run()
    mailbox.run()
    assert len(wakes) == 2000
    for thread in range(4):
        assert [number for by, number in ran if by == thread] == list(range(500))


def test_what_a_mailboxs_call_leaves_in_it_runs_as_well() -> None:
    ran: list[str] = []
    mailbox = Mailbox(lambda: None)
    mailbox.put(lambda: mailbox.put(lambda: ran.append("second")))
    mailbox.run()
    assert ran == ["second"]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_thread_is_woken_for_a_job_that_it_may_not_run(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    ran: list[int] = []
    woken: list[int] = []
    made = ModelWorker("test", 1000, threads)
    with busy(made):
        notify = made._changed.notify

        def counted(threads: int = 1) -> None:
            woken.append(threads)
            notify(threads)

        monkeypatch.setattr(made._changed, "notify", counted)
        for number in range(100):
            made.submit(functools.partial(ran.append, number))
        assert not woken, "jobs run one after another, and the thread that runs one takes the next"
        made.submit_to("lane", 0, 1, lambda items: None)
        assert woken, "beside a job a lane may run"
    assert made.stop(PATIENCE_S)
    assert ran == list(range(100))
