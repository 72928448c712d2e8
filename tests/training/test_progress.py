"""Progress on a terminal and elsewhere."""

from __future__ import annotations

import io

from limpet.training.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, seconds_a_step: float) -> str:
    time_s = 0.0

    def clock() -> float:
        return time_s

    with progress("training", 20, 10, file=file, clock=clock) as report:
        for done in range(11, 21):
            time_s += seconds_a_step
            report(done, f"loss {done}")
    return file.getvalue()


def test_without_a_terminal_there_are_plain_lines_a_few_seconds_apart() -> None:
    assert shown(io.StringIO(), 2.0).splitlines() == [
        "training 13/20 loss 13, 14 s left",
        "training 16/20 loss 16, 8 s left",
        "training 19/20 loss 19, 2 s left",
        "training 20/20 loss 20, 20 s",
    ]


def test_a_quick_run_without_a_terminal_prints_its_end_alone() -> None:
    assert shown(io.StringIO(), 0.01).splitlines() == ["training 20/20 loss 20, 0 s"]


def test_on_a_terminal_there_is_a_bar_that_ends_full() -> None:
    text = shown(Terminal(), 2.0)
    assert "100%" in text
    assert "\n" not in text.rstrip("\n")
