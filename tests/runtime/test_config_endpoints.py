"""Endpoints of a configuration: this host's need no permission, others do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.config_files import MODEL, fault, load


@pytest.mark.parametrize("key", ["listen", "publish"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:7700",
        "tcp://*:7700",
        "tcp://192.168.0.2:7700",
        "tcp://eth0:7700",
        "tcp://robot.local:7700",
        "tcp://127.example.org:7700",
    ],
)
def test_an_endpoint_beyond_this_host_needs_permission(
    tmp_path: Path, key: str, endpoint: str
) -> None:
    text = f"[server]\n{key} = ['tcp://127.0.0.1:1', '{endpoint}']\n{MODEL}"
    assert fault(tmp_path, text) == (
        f"2: endpoint '{endpoint}' is reachable from other hosts, unencrypted\n"
        "  bind tcp://127.0.0.1:PORT, or set allow_network = true on a network you trust"
    )
    allowed = load(tmp_path, text.replace("[server]\n", "[server]\nallow_network = true\n"))
    assert endpoint in getattr(allowed.server, key)


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:0", "tcp://127.8.8.8:7700", "tcp://localhost:7700"]
)
def test_an_endpoint_on_this_host_needs_none(tmp_path: Path, endpoint: str) -> None:
    assert load(tmp_path, f"[server]\nlisten = ['{endpoint}']\n{MODEL}").server.listen == (
        endpoint,
    )


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:7700",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:http",
        "tcp://127.0.0.1:70000",
        "udp://127.0.0.1:7700",
        "inproc://a",
        "ipc://",
        "",
    ],
)
def test_what_is_no_endpoint_is_told_with_its_line(tmp_path: Path, endpoint: str) -> None:
    assert fault(tmp_path, f"{MODEL}[server]\nlisten = ['{endpoint}']\n") == (
        f"4: endpoint '{endpoint}' is neither tcp://HOST:PORT nor ipc://PATH"
    )


def test_an_ipv6_endpoint_is_refused_by_name(tmp_path: Path) -> None:
    assert fault(tmp_path, f"[server]\nlisten = ['tcp://[::1]:7700']\n{MODEL}") == (
        "2: endpoint 'tcp://[::1]:7700' is IPv6, wanted an IPv4 address"
    )


@pytest.mark.parametrize("key", ["listen", "publish"])
def test_a_server_without_an_endpoint_is_refused(tmp_path: Path, key: str) -> None:
    text = f"[server]\nname = 'x'\n{key} = []\n{MODEL}"
    assert fault(tmp_path, text) == f"3: no endpoint (at server.{key})"
