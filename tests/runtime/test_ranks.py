"""Who is served next: priorities, a round for each client, the earliest deadline."""

from __future__ import annotations

import functools
import heapq
import random
import threading

from limpet.runtime.ranks import Rank, Ranks
from limpet.runtime.scheduler import InlineBudget, ModelWorker
from tests.runtime.workers import PATIENCE_S, busy, run_or_submit, worker


def serve(ranks: Ranks, asked: list[tuple[str, int, int]]) -> list[str]:
    """The order in which requests (client, priority, due) are served that all wait."""
    heap: list[tuple[Rank, str]] = []
    for client, priority, due_ns in asked:
        heapq.heappush(heap, (ranks.enter(client, priority, due_ns), client))
    order = []
    while heap:
        rank, client = heapq.heappop(heap)
        ranks.leave(client, rank, served=True)
        order.append(client)
    return order


def test_among_first_requests_the_earliest_deadline_is_first() -> None:
    assert serve(Ranks(), [("a", 0, 30), ("b", 0, 10), ("c", 0, 20)]) == ["b", "c", "a"]


def test_clients_take_turns_however_much_one_of_them_asks() -> None:
    asked = [("flood", 0, 0)] * 6 + [("a", 0, 99), ("b", 0, 98), ("a", 0, 97)]
    assert serve(Ranks(), asked) == ["flood", "b", "a", "flood", "a", *["flood"] * 4]


def test_priority_is_above_both() -> None:
    assert serve(Ranks(), [("a", 0, 0), ("b", 1, 99), ("c", -1, 0)]) == ["b", "a", "c"]


def test_who_comes_late_does_not_wait_for_a_flood() -> None:
    ranks = Ranks()
    flood = [ranks.enter("flood", 0, 0) for _ in range(100)]
    for rank in flood[:50]:
        ranks.leave("flood", rank, served=True)
    late = ranks.enter("late", 0, 99)
    assert flood[50] < late < flood[51] or late < flood[50]


def test_a_refused_request_costs_its_client_no_turn_and_nothing_is_remembered() -> None:
    ranks = Ranks()
    first = ranks.enter("a", 0, 0)
    for _ in range(1000):
        ranks.leave("a", ranks.enter("a", 0, 0), served=False)
    assert ranks.enter("a", 0, 0)[1] == first[1] + 1
    assert list(ranks._clients) == ["a"]
    for rank in (first, (0, first[1] + 1, 0, 0)):
        ranks.leave("a", rank, served=True)
    assert not ranks._clients


def test_a_full_queue_drops_the_flooding_clients_newest_for_another_clients_first() -> None:
    ran: list[str] = []
    evicted: list[str] = []
    with worker(capacity=4) as made, busy(made):

        def submit(client: str, name: str) -> bool:
            return made.submit(
                functools.partial(ran.append, name),
                client=client,
                on_evicted=functools.partial(evicted.append, name),
            )

        assert [submit("flood", f"f{i}") for i in range(6)] == [True] * 4 + [False] * 2
        assert submit("modest", "m0")
        assert evicted == ["f3"], "it is told at once"
        assert not submit("flood", "f6")
        assert made.waiting == 4
    assert ran == ["f0", "m0", "f1", "f2"]


def test_a_flood_and_modest_clients_lose_nothing_that_was_accepted() -> None:
    draw = random.Random(0)
    ran: list[int] = []
    evicted: list[int] = []
    refused: list[int] = []
    with worker(capacity=20) as made, busy(made):
        for number in range(2000):
            client = draw.choice(["flood"] * 8 + ["a", "b"])
            accepted = made.submit(
                functools.partial(ran.append, number),
                client=client,
                priority=draw.choice([0, 0, 0, 1]),
                due_ns=draw.randrange(100),
                key=draw.choice([None, (client, "key")]),
                on_replaced=functools.partial(evicted.append, number),
                on_evicted=functools.partial(evicted.append, number),
            )
            if not accepted:
                refused.append(number)
            assert made.waiting <= 20
    assert sorted(ran + evicted + refused) == list(range(2000))
    assert not made._backlog._ranks._clients


def test_inline_jobs_share_one_budget_until_it_is_renewed() -> None:
    budget = InlineBudget()
    ran: list[threading.Thread] = []
    workers = [ModelWorker(name, 10, budget=budget) for name in "ab"]
    for made in (workers[0], workers[1], workers[0]):
        run_or_submit(made, lambda: ran.append(threading.current_thread()), 900_000)
    for made in workers:
        assert made.stop(PATIENCE_S)
    assert [thread.name for thread in ran[:2]] == [threading.current_thread().name] * 2
    assert [thread.name for thread in ran[2:]] == ["model-a-0"]
    budget.renew()
    assert budget.allows(900_000)
