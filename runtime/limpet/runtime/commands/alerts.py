"""`limpet alerts`: follows a server's alerts, past and live."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone

import click
import msgspec

from limpet.contracts.messages import Alert


@click.command(name="alerts")
@click.option("--from", "endpoint", required=True, help="The server's endpoint.")
@click.option("--since", type=click.IntRange(min=0), help="Begin after this alert's number.")
@click.option("--once", is_flag=True, help="Stop when the alerts there are have been shown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(endpoint: str, since: int | None, once: bool, as_json: bool) -> None:
    """Follow a server's alerts: each exactly once, in order, also across restarts.

    Incidents that belong together have one group, the number of the first of them.

    Without --since only new ones are shown. With it, only those above its number: where the log
    ends before that, standard error says so. Alerts go to standard output, the server's silence
    and return to standard error.
    """
    from limpet.runtime.alert_feed import (
        AlertFeed,
        LogEnds,
        LogReplaced,
        ServerBack,
        ServerSilent,
    )

    with AlertFeed(endpoint, since) as feed:
        for event in feed.events(timeout_s=0.0 if once else None):
            if isinstance(event, Alert):
                line = msgspec.json.encode(event).decode() if as_json else format_alert(event)
                click.echo(line)
                sys.stdout.flush()
            elif isinstance(event, ServerSilent):
                click.echo(f"{_now()} no heartbeat for {event.seconds:.1f} s: "
                           "nothing is known of the streams", err=True)  # fmt: skip
            elif isinstance(event, ServerBack):
                click.echo(f"{_now()} {event.server} is back", err=True)
            elif isinstance(event, LogReplaced):
                click.echo(f"{_now()} the server keeps a new alert log {event.log_id}: "
                           "numbers begin anew", err=True)  # fmt: skip
            elif isinstance(event, LogEnds):
                click.echo(f"{_now()} the alert log {event.log_id} ends at {event.last}, before "
                           f"--since {since}: is that of another log? --since 0 shows all of "
                           "this one", err=True)  # fmt: skip


def format_alert(alert: Alert) -> str:
    """One line for a person: number, time, stream, what, group, score, channels."""
    moment = datetime.fromtimestamp(alert.time_ns / 1e9, timezone.utc)
    score = "no score" if alert.score is None else f"score {alert.score:.3f}"
    group = f" of group {alert.group}" if alert.group else ""
    channels = ", ".join(f"{c.name} {c.share:.0%}" for c in alert.channels[:3])
    return (
        f"#{alert.sequence:<5} {moment:%Y-%m-%d %H:%M:%S} {alert.stream}: {alert.event:<6} "
        f"incident {alert.incident}{group}, {score} (threshold {alert.threshold:.3f}, "
        f"peak {alert.peak_score:.3f}){', ' + channels if channels else ''}"
    )


def _now() -> str:
    return time.strftime("%H:%M:%S")
