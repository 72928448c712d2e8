"""Threads that take turns: one at a time inside, any number outside, none locked out."""

from __future__ import annotations

import threading

import pytest

from limpet.runtime.turn import TURN, OutsideTurn

PATIENCE_S = 20.0


def test_one_thread_at_a_time_has_the_turn() -> None:
    inside, most, ran = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, ran
        for _ in range(200):
            with TURN:
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0)  # lets go of the interpreter
                inside -= 1
                ran += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (most, ran) == (1, 800)


def test_others_have_the_turn_while_its_holder_is_outside() -> None:
    had = threading.Event()

    def work() -> None:
        with TURN:
            had.set()

    thread = threading.Thread(target=work)
    with TURN, TURN:
        thread.start()
        assert not had.wait(0.05)
        with OutsideTurn():
            assert had.wait(PATIENCE_S)
    thread.join(PATIENCE_S)


def test_outside_is_nothing_where_there_was_no_turn_and_an_error_gives_it_back() -> None:
    with OutsideTurn():
        pass
    with pytest.raises(ZeroDivisionError), TURN, OutsideTurn():
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), TURN:
        _ = 1 / 0
    done = threading.Event()

    def work() -> None:
        with TURN:
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(PATIENCE_S)
    thread.join(PATIENCE_S)


def test_a_thread_that_takes_its_turn_again_at_once_locks_no_other_out() -> None:
    done = threading.Event()

    def greedy() -> None:
        while not done.is_set():
            with TURN:
                sum(range(200))

    def modest() -> None:
        for _ in range(50):
            with TURN:
                pass
        done.set()

    threads = [threading.Thread(target=target, daemon=True) for target in (greedy, greedy, modest)]
    for thread in threads:
        thread.start()
    assert done.wait(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
