"""Worker threads of each model, so that a slow model never delays another's requests.

The server's I/O thread submits jobs. A job that is short and finds its model idle runs right there,
which saves two thread switches, as long as all of those together hold the I/O thread no longer than
its budget between two looks at its sockets. Every other one waits in a bounded queue.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from limpet.runtime.backlog import Backlog, Job, Lane, RunTogether, Together, Waiting
from limpet.runtime.run_cost import Pace
from limpet.runtime.turn import TURN

log = logging.getLogger(__name__)

MOST_TOGETHER = 64
"""Most items that are run together: every other job of the model waits that long at most."""
INLINE_BUDGET_NS = 2_000_000
"""Longest that jobs may hold the I/O thread between two looks at its sockets: so much longer does
every other client, stream and heartbeat wait at most."""


class InlineBudget:
    """What jobs may still take of the I/O thread before it looks at its sockets again."""

    def __init__(self) -> None:
        self._left_ns = INLINE_BUDGET_NS

    def renew(self) -> None:
        """The I/O thread has looked."""
        self._left_ns = INLINE_BUDGET_NS

    def allows(self, cost_ns: float) -> bool:
        """Whether a job of this length may run now."""
        return cost_ns <= self._left_ns

    def spend(self, cost_ns: float) -> None:
        """It did."""
        self._left_ns -= int(cost_ns)


class ModelWorker:
    """Runs jobs of one model one after another, in the order of their ranks (`ranks`).

    Items of several lanes are run together, one of each, so that the model sees many streams in
    one call; what follows in those lanes waits meanwhile. A lane takes one place in the queue
    however many items wait in it: who sends much waits behind who sends little.

    Args:
        name: The model's name, for the threads.
        capacity: Jobs and lanes that may wait.
        threads: Calls of `run_together` at a time, or all but one of them and a job.
        budget: Of the thread that submits; None is one of its own that is always full.
    """

    def __init__(
        self, name: str, capacity: int, threads: int = 1, budget: InlineBudget | None = None
    ) -> None:
        self._capacity, self._budget = capacity, budget
        self._backlog = Backlog(capacity)
        self._lanes: dict[Hashable, Lane] = {}
        self._pace = Pace()
        self._lock = threading.Lock()  # a `Condition` takes twice as long to enter
        self._changed = threading.Condition(self._lock)
        self._busy, self._in_job, self._stopping = 0, False, False
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit_to(self, lane: Hashable, item: Any, most: int, run_together: RunTogether) -> bool:
        """Queues an item behind those of its lane.

        Args:
            lane: What must stay in order.
            item: Goes to `run_together`.
            most: Items of the lane that may wait.
            run_together: Runs items of different lanes that were submitted with it; must not raise.

        Returns:
            Whether it was accepted; False where the queue or the lane is full, or was stopped.
        """
        with self._lock:
            found = self._lanes.get(lane)
            if self._stopping or (
                len(self._backlog) >= self._capacity if found is None else len(found.items) >= most
            ):
                return False
            if found is None:
                self._lanes[lane] = found = Lane(lane, run_together, deque())
                self._backlog.add_lane(found, time.monotonic_ns())
                self._changed.notify()
            found.items.append(item)
        return True

    def submit(
        self,
        job: Job,
        *,
        priority: int = 0,
        client: Hashable = None,
        due_ns: int | None = None,
        key: object = None,
        on_replaced: Job | None = None,
        on_evicted: Job | None = None,
        on_late: Callable[[int], None] | None = None,
        together: Callable[[], Together] | None = None,
    ) -> bool:
        """Has the worker run a job; see `run_inline` for one that may be run at once.

        Args:
            job: Must not raise.
            priority: Higher ones leave the queue first.
            client: Whose it is; None is nobody's. See `Ranks`.
            due_ns: When it must be done, monotonic; None where that is the same.
            key: A waiting job of the same key is dropped in favour of this one, which takes its
                place in the queue where both have one priority.
            on_replaced: Called if that happens to this one.
            on_evicted: Called if this one is dropped from a full queue for one of a better rank,
                such as a flooding client's is for another's, or for a newer one of its client where
                that would be done too late otherwise; None keeps it.
            on_late: Called instead of the job where others wait and this one would be done too late
                if it were begun now, with the nanoseconds that it would take; None begins it.
            together: Says how to run it with others that wait, if it has to wait.

        Returns:
            Whether it was accepted; False where the queue is full or was stopped.
        """
        with self._lock:
            if self._stopping:
                return False
            mates = None if together is None else together()
            new = Waiting(
                job, client, priority, due_ns, key, on_replaced, on_evicted, on_late, mates
            )
            accepted, dropped = self._backlog.add(new, time.monotonic_ns(), self._pace.each_ns)
            if accepted and not self._in_job:  # else the thread that is in one takes it next
                self._changed.notify()
        if dropped is not None:
            dropped()
        return accepted

    def _may_inline(self, cost_ns: float) -> bool:
        if self._budget is None:
            return cost_ns <= INLINE_BUDGET_NS
        return self._budget.allows(cost_ns)

    def run_inline(self, job: Job, cost_ns: float) -> bool:
        """Runs a job of that cost right here, if it is short and its model idle; whether it did."""
        if not self._may_inline(cost_ns):
            return False
        with self._lock:
            if self._busy or self._backlog or self._stopping:
                return False
            self._busy, self._in_job = 1, True
        try:
            with TURN:
                job()
        finally:
            self._done([])
            if self._backlog:
                with self._lock:
                    self._changed.notify()
        if self._budget is not None:
            self._budget.spend(cost_ns)
        return True

    @property
    def waiting(self) -> int:
        """Jobs and items in the queue."""
        with self._lock:
            return self._backlog.jobs + sum(len(lane.items) for lane in self._lanes.values())

    def stop(self, timeout_s: float) -> bool:
        """Finishes the queue, then ends the threads; whether it did so in time."""
        with self._lock:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            with self._lock:
                while (taken := self._take()) is None:
                    if self._stopping and not self._backlog:
                        self._changed.notify()  # the next one that waits has nothing to do either
                        return  # what waits in a lane that runs is for the thread that runs it
                    self._changed.wait()
                job, requests, lanes, late = taken
                self._busy += 1
                # A thread that is woken for nothing takes lock and interpreter from the one at
                # work: 50 µs, more than all Python of a request.
                if self._backlog.lanes or (self._backlog.jobs and not self._in_job):
                    self._changed.notify()
            took_ns = 0
            try:
                with TURN:
                    for drop in late:
                        drop()
                    begun_ns = time.monotonic_ns()
                    job()
                    took_ns = time.monotonic_ns() - begun_ns
            except BaseException:  # what waits behind it would wait for ever
                log.exception("a job of %s raised", threading.current_thread().name)
            finally:
                del job, taken, late  # it may hold megabytes, which would stay until the next one
                self._done(lanes, took_ns, requests)

    def _take(self) -> tuple[Job, int, list[Lane], list[Job]] | None:
        """What is next: the call, its requests, its lanes; and what to call for who is too late."""
        backlog, late = self._backlog, list[Job]()
        if not (self._in_job and backlog.next_is_job()):
            now_ns, call_ns = time.monotonic_ns(), self._pace.call_ns
            first = backlog.take(now_ns, call_ns)
            if isinstance(first, Waiting):
                self._in_job = True
                mates = backlog.take_mates(first, now_ns, call_ns)
                late, backlog.late = backlog.late, late
                if first.together is None or not mates:
                    return first.job, 1, [], late
                items = [first.together.item, *mates]
                run = functools.partial(first.together.run, items)
                return run, len(items), [], late
            late, backlog.late = backlog.late, late
        lanes = backlog.waiting_lanes()
        if lanes:
            lanes = [lane for lane in lanes if lane.run_together == lanes[0].run_together]
            lanes = lanes[:MOST_TOGETHER]
            backlog.take_lanes(lanes)
            items = [lane.items.popleft() for lane in lanes]
            run = functools.partial(lanes[0].run_together, items)
            return run, len(items), lanes, late
        if late:
            self._in_job = True
            return _nothing, 0, [], late
        return None

    def _done(self, lanes: Sequence[Lane], took_ns: int = 0, requests: int = 0) -> None:
        """A job has ended, or a call that ran items of these lanes."""
        with self._lock:
            self._busy -= 1
            if requests and took_ns:
                self._pace.observe(took_ns, requests)
            if not lanes:
                self._in_job = False
            for lane in lanes:
                if lane.items:
                    self._backlog.add_lane(lane, time.monotonic_ns())
                else:
                    del self._lanes[lane.key]


def _nothing() -> None:
    """In the place of jobs that were all too late."""


class Mailbox:
    """Calls that worker threads leave for the I/O thread; `wake` makes its poll return."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._calls: deque[Job] = deque()
        self._wake = wake

    def put(self, call: Job) -> None:
        """Leaves a call; from any thread."""
        self._calls.append(call)
        self._wake()

    def run(self) -> None:
        """Runs what has come, in order."""
        while self._calls:
            self._calls.popleft()()
