"""Groups of incidents in the log: decided once, kept over reopening."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from limpet.contracts.correlation import GroupingConfig
from limpet.contracts.errors import AlertLogError
from limpet.contracts.messages import Alert
from tests.runtime.alert_logs import Open, alert, along, opening, whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "alerts.db"


@pytest.fixture
def open_log(path: Path) -> Iterator[Open]:
    with opening(path) as open_one:
        yield open_one


def placed(alerts: Sequence[Alert]) -> list[tuple[str, int, int]]:
    return [(a.event, a.incident, a.group) for a in alerts]


def test_incidents_that_belong_together_have_one_group_in_all_their_alerts(open_log: Open) -> None:
    log = open_log()
    log.append([alert(stream="a"), alert(stream="b")], [along(0), along(1)])
    log.append([alert(stream="c"), alert("update", stream="c")], [along(0), None])
    log.append([alert("close", 1, "a"), alert("update", 2, "b"), alert("close", 3, "c")])
    assert placed(whole(log)) == [
        ("open", 1, 1), ("open", 2, 2), ("open", 3, 1), ("update", 3, 1),
        ("close", 1, 1), ("update", 2, 2), ("close", 3, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("directions", [True, False])
def test_groups_go_on_after_reopening(open_log: Open, directions: bool) -> None:
    first, second = (along(0), along(1)) if directions else (along(), along())
    log = open_log()
    log.append(
        [alert(stream="a"), alert("close", stream="a"), alert(stream="b")], [first, None, first]
    )
    log.close()
    log = open_log()
    log.append(
        [alert("update", 3, "b"), alert(stream="c"), alert(stream="d")], [None, first, second]
    )
    assert placed(whole(log))[3:] == [
        ("update", 3, 1), ("open", 5, 1), ("open", 6, 6 if directions else 1),
    ]  # fmt: skip


def test_what_could_not_be_written_is_in_no_group(open_log: Open, path: Path) -> None:
    log = open_log()
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON fingerprints WHEN NEW.incident = 2 "
            "BEGIN SELECT RAISE(ABORT, 'a broken disk'); END"
        )
        with pytest.raises(AlertLogError, match="a broken disk"):
            log.append([alert(stream="a"), alert(stream="b")], [along(0), along(1)])
        other.execute("DROP TRIGGER broken")
    log.append([alert(stream="c"), alert(stream="d")], [along(1), along(0)])
    assert placed(whole(log)) == [("open", 1, 1), ("open", 2, 2)]


def test_an_incident_without_a_fingerprint_is_a_group_of_its_own(open_log: Open) -> None:
    log = open_log()
    log.append([alert(stream="a"), alert(stream="b")])
    log.append([alert(stream="c")], [along(0)])
    assert placed(whole(log)) == [("open", 1, 1), ("open", 2, 2), ("open", 3, 3)]


def test_where_incidents_are_not_grouped_every_group_is_0(open_log: Open) -> None:
    log = open_log(grouping=GroupingConfig(enabled=False))
    log.append([alert(stream="a"), alert("update", stream="a"), alert(stream="b")], [along(0)] * 3)
    assert placed(whole(log)) == [("open", 1, 0), ("update", 1, 0), ("open", 3, 0)]
    log.close()
    log = open_log()  # from now on they are
    log.append(
        [alert("close", 1, "a"), alert(stream="c"), alert(stream="d")], [None, *[along(0)] * 2]
    )
    assert placed(whole(log))[3:] == [("close", 1, 0), ("open", 5, 5), ("open", 6, 5)]


def test_a_log_of_before_there_were_groups_is_read_and_gets_them_from_now_on(
    open_log: Open, path: Path
) -> None:
    open_log().close()
    old = msgspec.to_builtins(alert())
    del old["group"]
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE fingerprints")
        old |= {"log_id": "old", "sequence": 1, "incident": 1}
        body = msgspec.msgpack.encode(old)
        database.execute("INSERT INTO alerts VALUES (1, 1, 'open', ?)", (body,))
        database.commit()
    log = open_log()
    log.append([alert("close", 1), alert(stream="a"), alert(stream="b")], [None, *[along(0)] * 2])
    assert placed(whole(log)) == [("open", 1, 0), ("close", 1, 0), ("open", 3, 3), ("open", 4, 3)]
