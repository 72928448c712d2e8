"""Worker threads of each model, so that a slow model never delays another's requests.

The server's I/O thread submits jobs; a job that is short and finds its model idle runs right
there, which saves two thread switches, every other one waits in a bounded queue.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from limpet.runtime.turn import Turn

log = logging.getLogger(__name__)

Job = Callable[[], None]
RunTogether = Callable[[Sequence[Any]], None]
MOST_TOGETHER = 64
"""Most items that are run together: every other job of the model waits that long at most."""
INLINE_BUDGET_NS = 2_000_000
"""Longest job that may run in the I/O thread: every client waits that long at most."""


@dataclass(eq=False)
class _Lane:
    key: Hashable
    run_together: RunTogether
    items: deque[Any]


@dataclass(eq=False)
class _Entry:
    rank: tuple[int, int]
    """Minus the priority, then the order in which they came."""
    work: Job | _Lane
    key: object = None
    on_replaced: Job | None = None

    def __lt__(self, other: _Entry) -> bool:
        return self.rank < other.rank


class ModelWorker:
    """Runs jobs of one model one after another, highest priority first, else in order.

    Items of several lanes are run together, one of each, so that the model sees many streams in
    one call; what follows in those lanes waits meanwhile. A lane takes one place in the queue
    however many items wait in it: who sends much waits behind who sends little.

    Args:
        name: The model's name, for the threads.
        capacity: Jobs and lanes that may wait.
        threads: Calls of `run_together` at a time, or all but one of them and a job.
    """

    def __init__(self, name: str, capacity: int, threads: int = 1) -> None:
        self._capacity = capacity
        self._heap: list[_Entry] = []
        self._by_key: dict[object, _Entry] = {}
        self._lanes: dict[Hashable, _Lane] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition(threading.Lock())
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
        with self._changed:
            found = self._lanes.get(lane)
            if self._stopping or (
                len(self._heap) >= self._capacity if found is None else len(found.items) >= most
            ):
                return False
            if found is None:
                self._lanes[lane] = found = _Lane(lane, run_together, deque())
                self._queue(found)
            found.items.append(item)
            self._changed.notify()
        return True

    def _queue(self, lane: _Lane) -> None:
        heapq.heappush(self._heap, _Entry((0, next(self._numbers)), lane))

    def submit(
        self,
        job: Job,
        *,
        priority: int = 0,
        cost_ns: int | None = None,
        key: object = None,
        on_replaced: Job | None = None,
    ) -> bool:
        """Runs a job now or later.

        Args:
            job: Must not raise.
            priority: Higher ones leave the queue first.
            cost_ns: Estimate of its duration, where it may run in the caller's thread.
            key: A waiting job of the same key is dropped in favour of this one, which takes its
                place in the queue where both have one priority.
            on_replaced: Called if that happens to this one.

        Returns:
            Whether it was accepted; False where the queue is full or was stopped.
        """
        if cost_ns is not None and cost_ns <= INLINE_BUDGET_NS and self._run_inline(job):
            return True
        with self._changed:
            old = None if key is None else self._by_key.get(key)
            if self._stopping or (old is None and len(self._heap) >= self._capacity):
                return False
            entry = _Entry((-priority, next(self._numbers)), job, key, on_replaced)
            if old is not None:
                # Gone at once and not when its turn comes: it may hold megabytes.
                self._heap.remove(old)
                heapq.heapify(self._heap)
                if old.rank[0] == -priority:
                    entry.rank = old.rank
            heapq.heappush(self._heap, entry)
            if key is not None:
                self._by_key[key] = entry
            self._changed.notify()
        if old is not None and old.on_replaced is not None:
            old.on_replaced()
        return True

    def _run_inline(self, job: Job) -> bool:
        with self._changed:
            if self._busy or self._heap or self._stopping:
                return False
            self._busy, self._in_job = 1, True
        try:
            with Turn():
                job()
        finally:
            self._done([])
        return True

    @property
    def waiting(self) -> int:
        """Jobs and items in the queue."""
        with self._changed:
            jobs = sum(not isinstance(entry.work, _Lane) for entry in self._heap)
            return jobs + sum(len(lane.items) for lane in self._lanes.values())

    def stop(self, timeout_s: float) -> bool:
        """Finishes the queue, then ends the threads; whether it did so in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while True:
            with self._changed:
                while (taken := self._take()) is None:
                    if self._stopping and not self._heap:
                        self._changed.notify()  # the next one that waits has nothing to do either
                        return  # what waits in a lane that runs is for the thread that runs it
                    self._changed.wait()
                job, lanes = taken
                self._busy += 1
            try:
                with Turn():
                    job()
            except BaseException:  # what waits behind it would wait for ever
                log.exception("a job of %s raised", threading.current_thread().name)
            finally:
                self._done(lanes)

    def _take(self) -> tuple[Job, list[_Lane]] | None:
        """What is to run next, and the lanes that are in it."""
        if not self._heap:
            return None
        first = self._heap[0].work
        if not isinstance(first, _Lane):
            if not self._in_job:
                entry = heapq.heappop(self._heap)
                self._by_key.pop(entry.key, None)
                self._in_job = True
                return first, []
            lanes = self._waiting_lanes()
            if not lanes:
                return None
            first = lanes[0]
        lanes = [lane for lane in self._waiting_lanes() if lane.run_together == first.run_together]
        lanes = lanes[:MOST_TOGETHER]
        taken = {id(lane) for lane in lanes}
        self._heap = [entry for entry in self._heap if id(entry.work) not in taken]
        heapq.heapify(self._heap)
        items = [lane.items.popleft() for lane in lanes]
        return functools.partial(first.run_together, items), lanes

    def _waiting_lanes(self) -> list[_Lane]:
        return [entry.work for entry in sorted(self._heap) if isinstance(entry.work, _Lane)]

    def _done(self, lanes: Sequence[_Lane]) -> None:
        """A job has ended, or a call that ran items of these lanes."""
        with self._changed:
            self._busy -= 1
            if not lanes:
                self._in_job = False
            for lane in lanes:
                if lane.items:
                    self._queue(lane)
                else:
                    del self._lanes[lane.key]
            # A thread that is woken for nothing takes lock and interpreter from the one at work:
            # 50 µs a request, more than all Python of it.
            if self._heap or self._stopping:
                self._changed.notify()


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
