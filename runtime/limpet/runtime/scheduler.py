"""Worker threads of each model, so that a slow model never delays another's requests.

The server's I/O thread submits jobs. A job that is short and finds its model idle runs right there,
which saves two thread switches, as long as all of those together hold the I/O thread no longer than
its budget between two looks at its sockets. Every other one waits in a bounded queue.
"""

from __future__ import annotations

import functools
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from limpet.runtime.ranks import UNHURRIED_NS, Rank, Ranks
from limpet.runtime.turn import TURN

log = logging.getLogger(__name__)

Job = Callable[[], None]
RunTogether = Callable[[Sequence[Any]], None]
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


@dataclass(eq=False)
class _Lane:
    key: Hashable
    run_together: RunTogether
    items: deque[Any]


class Together(NamedTuple):
    """A job that may be run with others of its kind.

    Attributes:
        group: What jobs must have in common.
        item: Goes to `run`.
        most: Jobs at a time.
        run: Runs items of one group; must not raise.
    """

    group: Hashable
    item: Any
    most: int
    run: RunTogether


@dataclass(eq=False)
class _Entry:
    rank: Rank
    work: Job | _Lane
    client: Hashable
    key: object = None
    on_replaced: Job | None = None
    on_evicted: Job | None = None
    together: Together | None = None

    def __lt__(self, other: _Entry) -> bool:
        return self.rank < other.rank


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
        self._heap: list[_Entry] = []
        self._by_key: dict[object, _Entry] = {}
        self._lanes: dict[Hashable, _Lane] = {}
        self._ranks = Ranks()
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
        rank = self._ranks.enter(lane, 0, time.monotonic_ns() + UNHURRIED_NS)
        heapq.heappush(self._heap, _Entry(rank, lane, lane))

    def submit(
        self,
        job: Job,
        *,
        priority: int = 0,
        cost_ns: float | None = None,
        client: Hashable = None,
        due_ns: int | None = None,
        key: object = None,
        on_replaced: Job | None = None,
        on_evicted: Job | None = None,
        together: Callable[[], Together] | None = None,
    ) -> bool:
        """Runs a job now or later.

        Args:
            job: Must not raise.
            priority: Higher ones leave the queue first.
            cost_ns: Estimate of its duration, where it may run in the caller's thread.
            client: Whose it is; None is nobody's. See `Ranks`.
            due_ns: When it should be done, monotonic; None is `UNHURRIED_NS` from now.
            key: A waiting job of the same key is dropped in favour of this one, which takes its
                place in the queue where both have one priority.
            on_replaced: Called if that happens to this one.
            on_evicted: Called if this one is dropped from a full queue for one of a better rank,
                such as a flooding client's is for another's; None keeps it.
            together: Says how to run it with others that wait, if it has to wait.

        Returns:
            Whether it was accepted; False where the queue is full or was stopped.
        """
        if cost_ns is not None and self.run_inline(job, cost_ns):
            return True
        dropped: Job | None = None
        with self._lock:
            if self._stopping:
                return False
            old = None if key is None else self._by_key.get(key)
            if old is not None and old.rank[0] == -priority:
                rank, dropped = old.rank, old.on_replaced
            else:
                if due_ns is None:
                    due_ns = time.monotonic_ns() + UNHURRIED_NS
                rank = self._ranks.enter(client, priority, due_ns)
                if old is not None:
                    dropped = old.on_replaced
                elif len(self._heap) >= self._capacity:
                    old = max(self._heap)
                    if old.rank < rank or old.on_evicted is None:
                        self._ranks.leave(client, rank, served=False)
                        return False
                    dropped = old.on_evicted
                    self._by_key.pop(old.key, None)
                if old is not None:
                    self._ranks.leave(old.client, old.rank, served=False)
            if old is not None:
                # Gone at once and not when its turn comes: it may hold megabytes.
                self._heap.remove(old)
                heapq.heapify(self._heap)
            mates = None if together is None else together()
            entry = _Entry(rank, job, client, key, on_replaced, on_evicted, mates)
            heapq.heappush(self._heap, entry)
            if key is not None:
                self._by_key[key] = entry
            self._changed.notify()
        if dropped is not None:
            dropped()
        return True

    def _may_inline(self, cost_ns: float) -> bool:
        if self._budget is None:
            return cost_ns <= INLINE_BUDGET_NS
        return self._budget.allows(cost_ns)

    def run_inline(self, job: Job, cost_ns: float) -> bool:
        """Runs a job of that cost right here, if it is short and its model idle; whether it did."""
        if not self._may_inline(cost_ns):
            return False
        with self._lock:
            if self._busy or self._heap or self._stopping:
                return False
            self._busy, self._in_job = 1, True
        try:
            with TURN:
                job()
        finally:
            self._done([])
        if self._budget is not None:
            self._budget.spend(cost_ns)
        return True

    @property
    def has_waiting(self) -> bool:
        """Whether anything is in the queue."""
        return bool(self._heap)

    @property
    def waiting(self) -> int:
        """Jobs and items in the queue."""
        with self._lock:
            jobs = sum(not isinstance(entry.work, _Lane) for entry in self._heap)
            return jobs + sum(len(lane.items) for lane in self._lanes.values())

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
                    if self._stopping and not self._heap:
                        self._changed.notify()  # the next one that waits has nothing to do either
                        return  # what waits in a lane that runs is for the thread that runs it
                    self._changed.wait()
                job, lanes = taken
                self._busy += 1
            try:
                with TURN:
                    job()
            except BaseException:  # what waits behind it would wait for ever
                log.exception("a job of %s raised", threading.current_thread().name)
            finally:
                del job, taken  # it may hold megabytes, which would stay until the next one
                self._done(lanes)

    def _take(self) -> tuple[Job, list[_Lane]] | None:
        """What is to run next, and the lanes that are in it."""
        if not self._heap:
            return None
        first = self._heap[0].work
        if not isinstance(first, _Lane):
            if not self._in_job:
                entry = heapq.heappop(self._heap)
                self._leave(entry)
                self._in_job = True
                mates = self._take_mates(entry)
                if entry.together is None or not mates:
                    return first, []
                items = [entry.together.item, *mates]
                return functools.partial(entry.together.run, items), []
            lanes = self._waiting_lanes()
            if not lanes:
                return None
            first = lanes[0]
        lanes = [lane for lane in self._waiting_lanes() if lane.run_together == first.run_together]
        lanes = lanes[:MOST_TOGETHER]
        taken = {id(lane) for lane in lanes}
        for entry in self._heap:
            if id(entry.work) in taken:
                self._ranks.leave(entry.client, entry.rank, served=True)
        self._heap = [entry for entry in self._heap if id(entry.work) not in taken]
        heapq.heapify(self._heap)
        items = [lane.items.popleft() for lane in lanes]
        return functools.partial(first.run_together, items), lanes

    def _leave(self, entry: _Entry) -> None:
        self._by_key.pop(entry.key, None)
        self._ranks.leave(entry.client, entry.rank, served=True)

    def _take_mates(self, entry: _Entry) -> list[Any]:
        """Items of those that wait and may be run with a job, the best ranks first."""
        if entry.together is None:
            return []
        group, most = entry.together.group, entry.together.most
        mates = [e for e in self._heap if e.together is not None and e.together.group == group]
        mates = sorted(mates)[: most - 1]
        if mates:
            for mate in mates:
                self._leave(mate)
            taken = {id(mate) for mate in mates}
            self._heap = [e for e in self._heap if id(e) not in taken]
            heapq.heapify(self._heap)
        return [mate.together.item for mate in mates if mate.together is not None]

    def _waiting_lanes(self) -> list[_Lane]:
        return [entry.work for entry in sorted(self._heap) if isinstance(entry.work, _Lane)]

    def _done(self, lanes: Sequence[_Lane]) -> None:
        """A job has ended, or a call that ran items of these lanes."""
        with self._lock:
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
