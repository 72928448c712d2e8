"""What `limpet bench serve` says on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from limpet.contracts.reports import format_table
from limpet.runtime.bench.mixed import MixedRow
from limpet.runtime.bench.serving import ServingRow
from limpet.runtime.bench.serving_load import LoadReport, OpenRow, ThroughputRow
from limpet.runtime.bench.watch import Slope


def idle_table(rows: Sequence[ServingRow]) -> str:
    """What requests to an idle server cost."""
    return format_table(
        [
            "",
            "size",
            "limpet p50/p99 µs",
            "echo p50/p99 µs",
            "engine p50 µs",
            "ratio p50",
            "p99",
        ],
        [
            [
                row.transport,
                row.size,
                f"{row.limpet_p50:.0f} / {row.limpet_p99:.0f}",
                f"{row.echo_p50:.0f} / {row.echo_p99:.0f}",
                f"{row.engine_p50:.0f}",
                f"{row.ratio_p50:.2f}",
                f"{row.ratio_p99:.2f}",
            ]
            for row in rows
        ],
    )


def load_tables(load: LoadReport) -> str:
    """A server under load."""

    def latency(row: ThroughputRow | OpenRow | MixedRow) -> str:
        return f"{row.p50_ms:.2f} / {row.p99_ms:.2f} / {row.p999_ms:.2f}"

    def megabytes(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f} MB"

    over, start = load.overload, load.start
    head = "p50/p99/p99.9 ms"
    return "\n\n".join(
        [
            format_table(
                ["model", "clients", "results/s", head],
                [[r.model, str(r.clients), f"{r.per_s:.0f}", latency(r)] for r in load.throughput],
            ),
            format_table(
                ["model", "arrivals", "load", "offered/s", "no result", head],
                [
                    [
                        r.model,
                        r.arrivals,
                        f"{r.load:g}",
                        f"{r.offered_per_s:.0f}",
                        str(r.other),
                        latency(r),
                    ]
                    for r in load.open_loop
                ],
            ),
            format_table(
                ["together", "per s", "missed", "by the machine", head],
                [
                    [
                        r.model,
                        f"{r.rate_hz:g}",
                        f"{r.missed} of {r.requests}",
                        str(r.missed_by_machine),
                        latency(r),
                    ]
                    for r in load.mixed.models
                ],
            ),
            f"together for {load.mixed.seconds:g} s: memory {_slope(load.mixed.memory)}",
            format_table(
                ["a request beside", "", "p50/p99 ms"],
                [
                    [f"{r.of}", f"{r.count:,}", f"{r.p50_ms:.3f} / {r.p99_ms:.3f}"]
                    for r in load.growth
                ],
            ),
            f"overload: {over.offered_per_s:.0f} requests/s of {over.model} for {over.seconds:g} s,"
            f" goodput {over.goodput:.2f} of the capacity {over.capacity_per_s:.0f}/s "
            f"({over.saturated_per_s:.0f}/s without a maximum age); "
            f"{over.results} results, {over.result_age_p50_ms:.1f} ms old where they arrive (p50), "
            f"{over.result_age_max_ms:.1f} at most, {over.too_old} older than {over.max_age_ms:g}; "
            f"{over.stale} stale, {over.rejected} rejected, {over.unanswered} unanswered; at most "
            f"{over.queue_max} waiting, memory {_slope(over.memory)}",
            f"another client, 20 requests a second: p99 {over.good_idle_p99_ms:.1f} ms alone, "
            f"{over.good_beside_p99_ms:.1f} beside (alone and one call: "
            f"{over.good_allowed_ms:.1f}), {over.recovered_ms:.1f} in the second after",
            f"start: ready in {start.ready_ms:.0f} ms, first result {start.first_result_ms:.1f} ms "
            f"later; memory {megabytes(start.memory_mb)}, after load "
            f"{megabytes(start.memory_after_load_mb)}",
        ]
    )


def _slope(slope: Slope | None) -> str:
    if slope is None:
        return "-"
    return (
        f"{slope.first_mb:.0f} to {slope.last_mb:.0f} MB, {slope.mb_per_min:+.3f} ± "
        f"{slope.plus_minus:.3f} MB a minute{', flat' if slope.is_flat else ''}"
    )
