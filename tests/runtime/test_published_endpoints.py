"""Which of a server's endpoints for alerts a node takes."""

from __future__ import annotations

import pytest

from limpet.contracts.errors import (
    WireError,
)
from limpet.runtime.alert_feed import same_transport


@pytest.mark.parametrize(
    ("endpoint", "offered", "chosen"),
    [
        ("tcp://10.0.0.7:7700", ["tcp://0.0.0.0:7701"], "tcp://10.0.0.7:7701"),
        ("tcp://robot.local:1", ["ipc:///a", "tcp://127.0.0.1:2"], "tcp://robot.local:2"),
        ("ipc:///run/a.sock", ["tcp://127.0.0.1:2", "ipc:///run/b.sock"], "ipc:///run/b.sock"),
    ],
)
def test_alerts_come_over_the_transport_and_from_the_host_of_requests(
    endpoint: str, offered: list[str], chosen: str
) -> None:
    assert same_transport(endpoint, offered) == chosen


def test_a_server_that_publishes_elsewhere_only_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="publishes on") as caught:
        same_transport("tcp://127.0.0.1:1", ["ipc:///run/b.sock"])
    assert "add a tcp endpoint to `publish`" in caught.value.hint
