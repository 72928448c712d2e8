from __future__ import annotations

import re

import numpy as np
import pytest

from tests.benchmarks.peers.catalogue import (
    ECHO,
    FRAMEWORK_ROWS,
    IN_PROCESS,
    LANE,
    LIMPET,
    SHAPES,
)
from tests.benchmarks.peers.comparison import (
    Verdict,
    latency_rows,
    markdown,
    rate_rows,
    tables,
    verdicts,
)
from tests.benchmarks.peers.visits import MODELS_MS, SIZES, Latency, Rate

INSIDE_US = 10.0
ALL = [LIMPET, LANE, *FRAMEWORK_ROWS, *SHAPES, ECHO, IN_PROCESS]


def identifier(row: str) -> str:
    return re.sub(r"\W+", "_", row)


def measured(**changes: tuple[float, float]) -> list[Latency]:
    """One round in which limpet's overhead is 100/200 µs and every peer's 1000/2000; `changes`
    replaces overheads, by the row's name with `_` for what no identifier holds.
    """
    found = []
    for row in ALL:
        overhead = (100.0, 200.0) if row in (LIMPET, LANE) else (1000.0, 2000.0)
        overhead = changes.get(identifier(row), overhead)
        if row == IN_PROCESS:
            overhead = (0.0, 5.0)
        p50, p99 = np.add(overhead, INSIDE_US)
        found += [Latency(round=0, row=row, size=size, p50_us=p50, p99_us=p99) for size in SIZES]
    return found


def rates(**changes: float) -> list[Rate]:
    """One round in which limpet answers 1000 a second and everybody else 400."""
    found = []
    for model in MODELS_MS:
        for row in ALL:
            name = identifier(row)
            per_s = changes.get(name, 1000.0 if row in (LIMPET, IN_PROCESS) else 400.0)
            found.append(Rate(round=0, row=row, model=model, per_s=per_s))
    return found


def decided(latency: list[Latency], found: list[Rate], *words: str) -> list[Verdict]:
    """The verdicts whose target has all these words."""
    all_of_them = verdicts(latency_rows(latency), rate_rows(found))
    return [each for each in all_of_them if all(word in each.target for word in words)]


def test_overhead_is_the_median_over_rounds_less_the_p50_in_process() -> None:
    latency = [
        Latency(round=turn, row=row, size="4 KB", p50_us=p50, p99_us=2 * p50)
        for row, times in {LIMPET: (110, 500, 130), IN_PROCESS: (10, 20, 90)}.items()
        for turn, p50 in enumerate(times)
    ]
    ours, inside = latency_rows(latency)
    assert (ours.p50_us, ours.overhead_p50_us, ours.overhead_p99_us) == (130, 110, 240)
    assert (inside.overhead_p50_us, inside.overhead_p99_us) == (0, 20)
    assert (ours.over_limpet_p50, inside.over_limpet_p50, ours.rounds) == (1, 0, 3)


def test_with_a_wide_lead_every_target_is_reached() -> None:
    assert {each.reached for each in decided(measured(), rates())} == {True}


def test_a_framework_is_judged_by_the_better_of_its_rows_in_each_figure() -> None:
    for change in ({"pytriton_HTTP": (290.0, 9e3)}, {"pytriton_gRPC": (9e3, 590.0)}):
        latency = measured(**change)
        assert {v.reached for v in decided(latency, rates(), "pytriton's")} == {False}
        assert {v.reached for v in decided(latency, rates(), "LitServe's")} == {True}
    latency = measured(BentoML_no_batching=(290.0, 9e3))
    assert {v.reached for v in decided(latency, rates(), "BentoML's")} == {False}


def test_a_third_is_asked_at_p99_as_at_p50() -> None:
    for overhead, reached in (((301, 601), True), ((299, 601), False), ((301, 599), False)):
        found = decided(
            measured(BentoML=overhead, BentoML_no_batching=overhead), rates(), "BentoML's"
        )
        assert {each.reached for each in found} == {reached}


def test_of_the_shapes_only_less_is_asked_and_the_lane_is_judged_by_itself() -> None:
    latency = measured(GR00T_shaped=(150.0, 250.0), limpet_lane=(160.0, 200.0))
    tcp, lane = decided(latency, rates(), "4 KB", "GR00T")
    assert tcp.reached
    assert not lane.reached
    assert lane.target.startswith(LANE)


def test_what_is_as_quick_as_the_model_in_process_is_no_yardstick() -> None:
    """An overhead below nothing is noise, and nothing is a third of it."""
    found = decided(measured(LitServe=(-5.0, 2000.0)), rates(), "LitServe's")
    assert {each.reached for each in found} == {False}


@pytest.mark.parametrize(
    ("changes", "target", "reached"),
    [
        ({"LitServe": 500.0}, "twice", True),
        ({"LitServe": 501.0}, "twice", False),
        ({"openpi_shaped": 1001.0}, "shapes", False),
        ({"in_process": 1053.0}, "best batch in process", False),
        ({"in_process": 1052.0}, "best batch in process", True),
        ({"BentoML": 1001.0}, "below no peer", False),
    ],
)
def test_rates_are_held_against_the_best(
    changes: dict[str, float], target: str, reached: bool
) -> None:
    assert {v.reached for v in decided(measured(), rates(**changes), target)} == {reached}


def test_the_echo_and_the_model_in_process_are_nobody_to_beat() -> None:
    changes = {"raw_ZeroMQ_echo": 1e6}
    assert {v.reached for v in decided(measured(), rates(**changes))} == {True}


def test_a_peer_without_figures_leaves_its_targets_open_and_is_named() -> None:
    gone = "BentoML, no batching"
    latency = [each for each in measured() if each.row != gone]
    found = decided(latency, [each for each in rates() if each.row != gone])
    undecided = [each for each in found if each.reached is None]
    assert len(undecided) == 2 * len(SIZES) + 3
    assert all(f"no figures of {gone}" in str(each) for each in undecided)
    assert str(undecided[0]).startswith("not measured: ")


def test_nothing_measured_is_a_report_too() -> None:
    assert latency_rows([]) == rate_rows([]) == []
    assert {each.reached for each in verdicts([], [])} == {None}
    assert "one client" in tables([], [])


def test_tables_are_markdown_in_the_order_limpet_peers_floors() -> None:
    text = tables(latency_rows(measured()[::-1]), rate_rows(rates()[::-1]))
    one, many = text.split("\n\n")
    of_first_size = [line.split(" | ")[1] for line in one.splitlines()[2 : 2 + len(ALL)]]
    assert of_first_size == ALL
    assert many.splitlines()[2].startswith(f"| {LIMPET} | 1000 | ")
    assert {line.count("|") for line in many.splitlines()} == {len(MODELS_MS) + 2}


def test_a_table_has_a_rule_under_its_header() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| - | - |\n| 1 | 2 |"
