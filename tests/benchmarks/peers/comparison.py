"""From the measurements of all visits to a table and to whether the targets are reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from tests.benchmarks.peers.catalogue import (
    ECHO,
    FRAMEWORK_ROWS,
    FRAMEWORKS,
    IN_PROCESS,
    LANE,
    LIMPET,
    SHAPES,
)
from tests.benchmarks.peers.visits import MODELS_MS, SIZES, Latency, Rate

A_THIRD, TWICE, NEARLY_ALL = 1 / 3, 2.0, 0.95
LONG_MODEL = "10 ms"


class LatencyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One client, medians over rounds. Microseconds.

    Attributes:
        row: Whom it asked.
        size: Of request and answer.
        p50_us: Request to answer.
        p99_us: The same.
        overhead_p50_us: Less the p50 of the model in process.
        overhead_p99_us: The same.
        over_limpet_p50: This overhead by that of limpet over tcp.
        over_limpet_p99: The same.
        rounds: That were measured.
    """

    row: str
    size: str
    p50_us: float
    p99_us: float
    overhead_p50_us: float
    overhead_p99_us: float
    over_limpet_p50: float
    over_limpet_p99: float
    rounds: int


class RateRow(msgspec.Struct, frozen=True, kw_only=True):
    """16 clients, medians over rounds.

    Attributes:
        row: Whom they asked.
        model: Which.
        per_s: Answers per second; in process: items per second of the best batch.
        limpet_over: What limpet answers by this.
        rounds: That were measured.
    """

    row: str
    model: str
    per_s: float
    limpet_over: float
    rounds: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One target.

    Attributes:
        target: In words.
        measured: In numbers.
        reached: Whether; None where it cannot be said.
    """

    target: str
    measured: str
    reached: bool | None

    def __str__(self) -> str:
        word = {True: "reached", False: "MISSED", None: "not measured"}[self.reached]
        return f"{word}: {self.target}: {self.measured}"


def latency_rows(measured: Sequence[Latency]) -> list[LatencyRow]:
    """A row for each size and each of whom was asked, where the floor in process is known."""
    names = _in_order(each.row for each in measured)
    rows = []
    for size in SIZES:
        times = {
            name: np.median(found, axis=0)
            for name in names
            if (
                found := [(m.p50_us, m.p99_us) for m in measured if (m.row, m.size) == (name, size)]
            )
        }
        if IN_PROCESS not in times:
            continue
        inside = times[IN_PROCESS][0]
        ours = times[LIMPET] - inside if LIMPET in times else np.full(2, np.nan)
        for name, (p50, p99) in times.items():
            rows.append(
                LatencyRow(
                    row=name,
                    size=size,
                    p50_us=float(p50),
                    p99_us=float(p99),
                    overhead_p50_us=float(p50 - inside),
                    overhead_p99_us=float(p99 - inside),
                    over_limpet_p50=float((p50 - inside) / ours[0]),
                    over_limpet_p99=float((p99 - inside) / ours[1]),
                    rounds=sum((m.row, m.size) == (name, size) for m in measured),
                )
            )
    return rows


def rate_rows(measured: Sequence[Rate]) -> list[RateRow]:
    """A row for each model and each of whom was asked."""
    rows = []
    for model in MODELS_MS:
        of_model = [each for each in measured if each.model == model]
        rates = {
            name: [each.per_s for each in of_model if each.row == name]
            for name in _in_order(each.row for each in of_model)
        }
        ours = float(np.median(rates[LIMPET])) if LIMPET in rates else float("nan")
        for name, found in rates.items():
            per_s = float(np.median(found))
            rows.append(
                RateRow(
                    row=name, model=model, per_s=per_s, limpet_over=ours / per_s, rounds=len(found)
                )
            )
    return rows


def verdicts(latency: Sequence[LatencyRow], rates: Sequence[RateRow]) -> list[Verdict]:
    """Whether each target is reached."""
    found = []
    for size in SIZES:
        overheads = {
            each.row: (each.overhead_p50_us, each.overhead_p99_us)
            for each in latency
            if each.size == size
        }
        for ours in (LIMPET, LANE):
            for framework, rows in FRAMEWORKS.items():
                target = f"{ours}, {size}: overhead at most a third of {framework}'s"
                found.append(_below(target, ours, rows, overheads, A_THIRD))
            for shape in SHAPES:
                target = f"{ours}, {size}: overhead below {shape}'s"
                found.append(_below(target, ours, [shape], overheads, 1.0))
    for model in MODELS_MS:
        per_s = {each.row: each.per_s for each in rates if each.model == model}
        if model == LONG_MODEL:
            target = f"{model}: {NEARLY_ALL:g} of the best batch in process"
            found.append(_above(target, [IN_PROCESS], per_s, NEARLY_ALL))
            target = f"{model}: answers per second below no peer's"
            found.append(_above(target, [*FRAMEWORK_ROWS, *SHAPES], per_s, 1.0))
        else:
            target = f"{model}: twice the answers per second of the best framework"
            found.append(_above(target, FRAMEWORK_ROWS, per_s, TWICE))
            target = f"{model}: more answers per second than the shapes"
            found.append(_above(target, SHAPES, per_s, 1.0))
    return found


def _below(
    target: str,
    ours: str,
    others: Sequence[str],
    overheads: dict[str, tuple[float, float]],
    bound: float,
) -> Verdict:
    """Whether our overhead is at most `bound` of the least of others', at p50 and at p99."""
    if missing := _missing([ours, *others], overheads):
        return Verdict(target=target, measured=missing, reached=None)
    # Each percentile of the one that is best in it: of gRPC and HTTP both are the peer's to choose.
    ratios = [
        overheads[ours][place] / min(overheads[other][place] for other in others)
        for place in (0, 1)
    ]
    return Verdict(
        target=target,
        measured=f"{ratios[0]:.2f} at p50, {ratios[1]:.2f} at p99 (at most {bound:.2f})",
        reached=all(0 <= ratio <= bound for ratio in ratios),
    )


def _above(target: str, others: Sequence[str], per_s: dict[str, float], bound: float) -> Verdict:
    """Whether limpet answers at least `bound` of what the best of others does."""
    if missing := _missing([LIMPET, *others], per_s):
        return Verdict(target=target, measured=missing, reached=None)
    best = max(others, key=per_s.__getitem__)
    ratio = per_s[LIMPET] / per_s[best]
    measured = f"{ratio:.2f} of {best} (at least {bound:.2f})"
    return Verdict(target=target, measured=measured, reached=ratio >= bound)


def _missing(rows: Sequence[str], found: Iterable[str]) -> str:
    missing = [row for row in rows if row not in set(found)]
    return f"no figures of {', '.join(missing)}" if missing else ""


def _in_order(names: Iterable[str]) -> list[str]:
    """Each once, limpet first, floors last, whatever order the rounds had."""
    order = [LIMPET, LANE, *FRAMEWORK_ROWS, *SHAPES, ECHO, IN_PROCESS]
    return sorted(set(names), key=order.index)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["-"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(latency: Sequence[LatencyRow], rates: Sequence[RateRow]) -> str:
    """Both tables in Markdown."""
    one = markdown(
        ["size", "one client", "p50 / p99 µs", "overhead µs", "by limpet's"],
        [
            [
                each.size,
                each.row,
                f"{each.p50_us:.0f} / {each.p99_us:.0f}",
                f"{each.overhead_p50_us:.0f} / {each.overhead_p99_us:.0f}",
                f"{each.over_limpet_p50:.2f} / {each.over_limpet_p99:.2f}",
            ]
            for each in latency
        ],
    )
    names = _in_order(each.row for each in rates)
    by_both = {(each.row, each.model): each.per_s for each in rates}
    many = markdown(
        ["answers/s, 16 clients", *MODELS_MS],
        [
            [
                f"{name}, best batch" if name == IN_PROCESS else name,
                *(
                    f"{by_both[name, model]:.0f}" if (name, model) in by_both else "-"
                    for model in MODELS_MS
                ),
            ]
            for name in names
        ],
    )
    return f"{one}\n\n{many}"
