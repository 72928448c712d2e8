"""What waits for one model: who is next, whom a full queue drops, and what is too late to begin.

A turn (a rank, `ranks`) belongs to a client and not to one of its requests: in it the oldest of
that client's requests is served which still waits. So a request can be dropped for a newer one of
the same client at no cost, and without moving the client forward or back.

Where more waits than can be answered in time, a client's oldest request makes room for its newest.
One that is dropped saves the time of one, whichever it is (Moore, 1968, for equal durations), and
of those that remain the newer ones have the most time left. So at twice the capacity results are
half as old as they may be, instead of being too old at the least delay.
"""

from __future__ import annotations

import functools
import heapq
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from limpet.runtime.ranks import UNHURRIED_NS, Rank, Ranks

Job = Callable[[], None]
RunTogether = Callable[[Sequence[Any]], None]


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
class Waiting:
    """A job that waits; its attributes are those of `ModelWorker.submit`."""

    job: Job
    client: Hashable = None
    priority: int = 0
    due_ns: int | None = None
    key: object = None
    on_replaced: Job | None = None
    on_evicted: Job | None = None
    on_late: Callable[[int], None] | None = None
    together: Together | None = None
    line: _Line = field(init=False)


@dataclass(eq=False)
class _Line:
    """Jobs of one client and priority, oldest first, and the turns that they have.

    There may be more turns than jobs, where some were dropped as too late: the next jobs take them.
    """

    client: Hashable
    priority: int
    jobs: deque[Waiting]
    turns: int = 0


@dataclass(eq=False)
class Lane:
    """Items that must stay in order; one turn, however many there are."""

    key: Hashable
    run_together: RunTogether
    items: deque[Any]


class Backlog:
    """Jobs and lanes that wait. Not safe from several threads.

    Args:
        capacity: Of jobs and lanes.

    Attributes:
        jobs: How many wait.
        lanes: How many wait.
        late: What is to be called, once nobody is kept waiting by it, for jobs that `take` found to
            be too late.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._turns: list[tuple[Rank, _Line | Lane]] = []  # a heap; ranks differ
        self._worst: tuple[Rank, _Line | Lane] | None = None  # of them, where it is known
        self._lines: dict[tuple[Hashable, int], _Line] = {}
        self._by_key: dict[object, Waiting] = {}
        self._ranks = Ranks()
        self.jobs, self.lanes = 0, 0
        self.late: list[Job] = []

    def __len__(self) -> int:
        """Jobs and lanes."""
        return self.jobs + self.lanes

    # In ------------------------------------------------------------------------------------------

    def add(self, new: Waiting, now_ns: int, each_ns: float) -> tuple[bool, Job | None]:
        """A job begins to wait.

        Args:
            new: The job.
            now_ns: The monotonic clock.
            each_ns: How long a job takes, those that run together counted one by one; 0: unknown.

        Returns:
            Whether it was accepted, and what to call for the one that was dropped for it.
        """
        old = None if new.key is None else self._by_key.get(new.key)
        if old is not None and old.priority == new.priority:
            new.line = old.line
            new.line.jobs[new.line.jobs.index(old)] = new
            self._by_key[new.key] = new
            return True, old.on_replaced
        dropped: Job | None = None
        if old is not None:
            # Gone at once and not when its turn comes: it may hold megabytes.
            self._forget(old)
            self._remove(self._last_turn(old.line))
            dropped = old.on_replaced
        line = self._line_of(new)
        if dropped is None and self._makes_room(line, new, now_ns, each_ns):
            oldest = line.jobs[0]
            self._forget(oldest)
            dropped = oldest.on_evicted
        while line.turns > len(line.jobs):
            if dropped is not None or len(self) < self._capacity:
                self._append(line, new)
                return True, dropped
            self._remove(self._last_turn(line))
            line = self._line_of(new)
        due_ns = now_ns + UNHURRIED_NS if new.due_ns is None else new.due_ns
        rank = self._ranks.enter(new.client, new.priority, due_ns)
        if dropped is None and len(self) >= self._capacity:
            worst = self._find_worst()
            last = worst[1].jobs[-1] if isinstance(worst[1], _Line) else None
            if worst[0] < rank or last is None or last.on_evicted is None:
                self._ranks.leave(new.client, rank, served=False)
                self._drop_line(line)
                return False, None
            self._forget(last)
            self._remove(worst)
            dropped = last.on_evicted
        self._push((rank, line))
        line.turns += 1
        self._append(line, new)
        return True, dropped

    def add_lane(self, lane: Lane, now_ns: int) -> None:
        """A lane begins to wait, whether or not there is room."""
        self._push((self._ranks.enter(lane, 0, now_ns + UNHURRIED_NS), lane))
        self.lanes += 1

    def _makes_room(self, line: _Line, new: Waiting, now_ns: int, each_ns: float) -> bool:
        """Whether a client's oldest job is to be dropped, since its newest would come too late."""
        if new.due_ns is None or not each_ns or not line.jobs:
            return False
        oldest = line.jobs[0]
        if oldest.on_evicted is None or oldest.due_ns is None or oldest.due_ns > new.due_ns:
            return False
        # The one that runs, those ahead, and itself.
        ahead = min(len(self), self._ranks.most_ahead(new.client))
        return now_ns + (ahead + 2) * each_ns > new.due_ns

    def _line_of(self, new: Waiting) -> _Line:
        if new.client is None:  # nobody waits behind none of its own
            return _Line(None, new.priority, deque())
        name = (new.client, new.priority)
        if (line := self._lines.get(name)) is None:
            self._lines[name] = line = _Line(new.client, new.priority, deque())
        return line

    def _append(self, line: _Line, new: Waiting) -> None:
        new.line = line
        line.jobs.append(new)
        self.jobs += 1
        if new.key is not None:
            self._by_key[new.key] = new

    def _push(self, turn: tuple[Rank, _Line | Lane]) -> None:
        heapq.heappush(self._turns, turn)
        if len(self._turns) == 1 or (self._worst is not None and turn > self._worst):
            self._worst = turn

    # Out -----------------------------------------------------------------------------------------

    def take(self, now_ns: int, call_ns: float) -> Waiting | Lane | None:
        """Who is next: a job, which waits no longer, or a lane, which does until `take_lanes`.

        Jobs that would be too late are dropped on the way, where another waits: see `late`.

        Args:
            now_ns: The monotonic clock.
            call_ns: How long what is begun now may take.
        """
        while self._turns:
            turn = self._turns[0]
            if isinstance(turn[1], Lane):
                return turn[1]
            self._pop()
            if (job := self._serve(turn[0], turn[1], now_ns, call_ns)) is not None:
                return job
        return None

    def next_is_job(self) -> bool:
        """Whether `take` would begin with a client's turn."""
        return bool(self._turns) and isinstance(self._turns[0][1], _Line)

    def take_mates(self, first: Waiting, now_ns: int, call_ns: float) -> list[Any]:
        """Items of those that may be run with a job that was taken, the best ranks first.

        Each makes the call longer for all in it. So one of a client with several that wait is not
        run with the only one of another, which would be delayed by as much as a flood likes.
        """
        if first.together is None:
            return []
        group, most = first.together.group, first.together.most
        items: list[Any] = []
        others, without = [], set[int]()  # turns; lines in which nothing can be run with it
        has_only_one = not first.line.jobs  # whether somebody's only one is in the call
        while self._turns and len(items) < most - 1:
            rank, line = turn = self._pop()
            if isinstance(line, Lane) or id(line) in without:
                others.append(turn)
            elif has_only_one and len(line.jobs) > 1:
                others.append(turn)
                break  # what follows ranks behind it
            elif (job := self._serve(rank, line, now_ns, call_ns, group)) is not None:
                assert job.together is not None
                items.append(job.together.item)
                has_only_one = has_only_one or not line.jobs
            elif line.jobs:
                without.add(id(line))
                others.append(turn)
        for turn in others:
            self._push(turn)
        return items

    def waiting_lanes(self) -> list[Lane]:
        """Those that wait, the best ranks first."""
        return [turn[1] for turn in sorted(self._turns) if isinstance(turn[1], Lane)]

    def take_lanes(self, lanes: Sequence[Lane]) -> None:
        """These wait no longer."""
        taken = {id(lane) for lane in lanes}
        for rank, of in self._turns:
            if id(of) in taken:
                assert isinstance(of, Lane)
                self._ranks.leave(of, rank, served=True)
        self._turns = [turn for turn in self._turns if id(turn[1]) not in taken]
        heapq.heapify(self._turns)
        self._worst = None
        self.lanes -= len(lanes)

    def _serve(
        self, rank: Rank, line: _Line, now_ns: int, call_ns: float, group: Hashable = None
    ) -> Waiting | None:
        """The job to be run in a turn that is taken out; None where none is left for it.

        With a `group`, the oldest job of that group; where there are others alone, the turn stays
        and the caller puts it back.
        """
        while line.jobs:
            job = line.jobs[0]
            if group is not None and not _is_of(job, group):
                found = next((each for each in line.jobs if _is_of(each, group)), None)
                if found is None:
                    return None
                job = found
            late = job.due_ns is not None and now_ns + call_ns > job.due_ns and len(self) > 1
            self._forget(job)
            if late and job.on_late is not None:
                self.late.append(functools.partial(job.on_late, round(call_ns)))
                continue
            self._end_turn(rank, line, served=True)
            return job
        self._end_turn(rank, line, served=False)
        return None

    def _forget(self, job: Waiting) -> None:
        """A job leaves its line; its turn stays."""
        line = job.line
        if line.jobs[0] is job:
            line.jobs.popleft()
        else:
            line.jobs.remove(job)
        self.jobs -= 1
        if job.key is not None:
            del self._by_key[job.key]

    def _pop(self) -> tuple[Rank, _Line | Lane]:
        turn = heapq.heappop(self._turns)
        if turn is self._worst:
            self._worst = None
        return turn

    def _end_turn(self, rank: Rank, line: _Line, served: bool) -> None:
        self._ranks.leave(line.client, rank, served)
        line.turns -= 1
        self._drop_line(line)

    def _drop_line(self, line: _Line) -> None:
        if not line.turns and line.client is not None:
            self._lines.pop((line.client, line.priority), None)

    def _remove(self, turn: tuple[Rank, _Line | Lane]) -> None:
        """A turn ends that is not the next."""
        self._turns.remove(turn)
        heapq.heapify(self._turns)
        self._worst = None
        assert isinstance(turn[1], _Line)
        self._end_turn(turn[0], turn[1], served=False)

    def _last_turn(self, line: _Line) -> tuple[Rank, _Line | Lane]:
        return max(turn for turn in self._turns if turn[1] is line)

    def _find_worst(self) -> tuple[Rank, _Line | Lane]:
        """The last turn; those that nobody needs any more end on the way."""
        while True:
            if self._worst is None:
                self._worst = max(self._turns)
            line = self._worst[1]
            if isinstance(line, Lane) or line.turns <= len(line.jobs):
                return self._worst
            self._remove(self._worst)


def _is_of(job: Waiting, group: Hashable) -> bool:
    return job.together is not None and job.together.group == group
