"""Who is served next: priorities, then a round for each client, then the earliest deadline.

Rounds are fair queueing with requests of one size (start-time fair queueing; Goyal, Vin and Cheng,
1996): a client's next request belongs to the round after that of its last one that still waits, or
to that which is being served, unless it has had its turn in it. So the tenth request of a client
that floods waits behind the first of every other, and a client that asks now and then waits for the
one request of a flood that runs.
"""

from __future__ import annotations

from collections.abc import Hashable

UNHURRIED_NS = 100_000_000
"""A request that states no maximum age counts as due this long after it came."""

Rank = tuple[int, int, int, int]
"""Minus the priority, round, due time, order of arrival; the smallest is served first."""


class Ranks:
    """Gives ranks to what waits for one model. Not safe from several threads."""

    def __init__(self) -> None:
        self._served_round = 0
        self._served: set[Hashable] = set()  # had their turn in it
        self._number = 0
        self._clients: dict[Hashable, list[int]] = {}  # newest round, how many wait

    def enter(self, client: Hashable, priority: int, due_ns: int) -> Rank:
        """The rank of a request that begins to wait.

        Args:
            client: Whose it is; None is nobody, and waits behind none of its own.
            priority: Higher ones are served first.
            due_ns: When its answer is due; any clock, the same for all.
        """
        self._number += 1
        of_round = self._served_round + (client in self._served)
        if client is not None:
            entry = self._clients.setdefault(client, [of_round - 1, 0])
            entry[0] = of_round = max(of_round, entry[0] + 1)
            entry[1] += 1
        return (-priority, of_round, due_ns, self._number)

    def most_ahead(self, client: Hashable) -> int:
        """How many are served before a client's newest, at most, where priorities are equal."""
        entry = self._clients.get(client)
        if entry is None:
            return len(self._clients)
        return (entry[0] - self._served_round + 1) * len(self._clients)

    def leave(self, client: Hashable, rank: Rank, served: bool) -> None:
        """A request waits no longer, since it is served now or because it is dropped."""
        if served:
            if rank[1] > self._served_round:
                self._served_round = rank[1]
                self._served.clear()
            if rank[1] == self._served_round and client is not None:
                self._served.add(client)
        if client is not None:
            entry = self._clients[client]
            entry[1] -= 1
            if not entry[1]:
                del self._clients[client]
            elif not served and entry[0] == rank[1]:
                entry[0] -= 1
