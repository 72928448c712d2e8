"""What `limpet alerts` says of an alert."""

from __future__ import annotations

import msgspec
import pytest

from limpet.contracts.messages import Alert, ChannelShare
from limpet.runtime.commands.alerts import format_alert

ALERT = Alert(
    log_id="log", sequence=18, event="open", incident=18, group=17, stream="pump", model="m",
    space_id="s", start_time_ns=0, time_ns=1_764_000_000 * 10**9, row=0, score=4.0, peak_score=5.0,
    threshold=3.0, rows=3, channels=[ChannelShare("speed", 0.75)], recorded_ns=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("group", "said"), [(17, "18 of group 17,"), (18, "18 of group 18,"), (0, "18,")]
)
def test_a_line_says_which_group_an_incident_belongs_to(group: int, said: str) -> None:
    line = format_alert(msgspec.structs.replace(ALERT, group=group))
    assert line == (
        f"#18    2025-11-24 16:00:00 pump: open   incident {said} score 4.000 "
        "(threshold 3.000, peak 5.000), speed 75%"
    )
