"""The alert log: numbered without gaps, durable before it is told, whole or an error."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from limpet.contracts.errors import AlertLogError
from limpet.contracts.messages import Alert
from limpet.runtime.alert_log import AlertLog
from tests.runtime.alert_logs import Open, alert, along, opening, whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "alerts.db"


@pytest.fixture
def open_log(path: Path) -> Iterator[Open]:
    with opening(path) as open_one:
        yield open_one


def numbers(alerts: Sequence[Alert]) -> list[int]:
    return [a.sequence for a in alerts]


def test_numbers_have_no_gaps_over_reopening(open_log: Open) -> None:
    for opened in range(3):
        log = open_log()
        assert log.last == 2 * opened
        log.append([alert()])
        log.append([alert("close", incident=log.last)])
        log.close()
    assert numbers(whole(open_log())) == [1, 2, 3, 4, 5, 6]


def test_an_alert_comes_back_as_it_was_appended(open_log: Open) -> None:
    log = open_log()
    given = alert(row=17)
    log.append([given])
    assert whole(log) == [given]
    log.close()
    assert whole(open_log()) == [given]


def test_the_log_keeps_its_id_and_another_one_has_another(open_log: Open, tmp_path: Path) -> None:
    log = open_log()
    log.append([alert()])
    assert whole(log)[0].log_id == log.log_id
    log.close()
    with closing(AlertLog(tmp_path / "other.db", lambda alerts: None)) as other:
        assert open_log().log_id == log.log_id != other.log_id


def test_appending_nothing_changes_nothing(open_log: Open) -> None:
    def refuse(alerts: Sequence[Alert]) -> None:
        raise AssertionError("told of nothing")

    log = open_log(refuse)
    log.append([])
    assert log.last == 0


def test_an_open_numbers_its_incident_and_what_follows_it(open_log: Open) -> None:
    log = open_log()
    log.append([alert(stream="a"), alert(stream="b"), alert("update", stream="a")])
    log.append([alert("close", 1, "a"), alert(stream="a"), alert("close", stream="a")])
    assert [(a.sequence, a.event, a.incident, a.stream) for a in whole(log)] == [
        (1, "open", 1, "a"),
        (2, "open", 2, "b"),
        (3, "update", 1, "a"),
        (4, "close", 1, "a"),
        (5, "open", 5, "a"),
        (6, "close", 5, "a"),
    ]


def test_since_is_exclusive_ascending_and_limited(open_log: Open) -> None:
    log = open_log()
    log.append([alert(stream=str(i)) for i in range(10)])
    assert numbers(log.since(0, 3)) == [1, 2, 3]
    assert numbers(log.since(7, 100)) == [8, 9, 10]
    assert log.since(10, 100) == log.since(2**62, 100) == []


def test_listeners_are_told_in_order_of_numbers_from_any_thread(open_log: Open) -> None:
    told: list[int] = []
    log = open_log(lambda alerts: told.extend(numbers(alerts)))

    def work(stream: str) -> None:
        for _ in range(10):
            log.append([alert(stream=stream), alert("close", stream=stream)])

    threads = [threading.Thread(target=work, args=[str(i)]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == list(range(1, 81)) == numbers(whole(log))


def test_what_listeners_are_told_is_durable_already(open_log: Open, path: Path) -> None:
    found: list[int] = []

    def look(alerts: Sequence[Alert]) -> None:
        with closing(sqlite3.connect(path)) as other:
            found.append(other.execute("SELECT count(*) FROM alerts").fetchone()[0])

    open_log(look).append([alert(), alert("close")])
    assert found == [2]


def test_commits_wait_for_the_disk(open_log: Open, path: Path) -> None:
    log = open_log()
    assert log._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert log._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_open_incidents_are_there_after_reopening_and_closed_ones_are_not(open_log: Open) -> None:
    log = open_log()
    log.append([alert(stream="a"), alert(stream="b"), alert(stream="c")])
    log.append([alert("close", 2, "b"), alert("update", 3, "c", row=9)])
    for again in (log, None):
        if again is None:
            log.close()
            log = open_log()
        found = {name: log.open_incident(name) for name in "abcd"}
        assert {k: (v.sequence, v.incident, v.row) for k, v in found.items() if v} == {
            "a": (1, 1, 0),
            "c": (5, 3, 9),
        }


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_alerts_of_one_append_are_written_together_or_not_at_all(
    open_log: Open, path: Path, refused: int
) -> None:
    told: list[Alert] = []
    log = open_log(told.extend)
    log.append([alert(stream="a")])
    told.clear()
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            f"CREATE TRIGGER broken BEFORE INSERT ON alerts WHEN NEW.sequence = {1 + refused} "
            "BEGIN SELECT RAISE(ABORT, 'a broken disk'); END"
        )
        with pytest.raises(AlertLogError, match=r"alerts\.db cannot be written: a broken disk"):
            log.append([alert("close", 1, "a"), alert(stream="b"), alert("update", stream="b")])
        assert other.execute("SELECT count(*) FROM alerts").fetchone() == (1,)
        other.execute("DROP TRIGGER broken")
    assert told == []
    assert log.last == 1
    assert log.open_incident("a") is not None
    assert log.open_incident("b") is None
    log.append([alert("close", 1, "a")])
    assert numbers(whole(log)) == [1, 2]


def test_a_full_disk_is_an_error_and_the_log_works_on_once_there_is_room(open_log: Open) -> None:
    log = open_log()
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count = {pages}")
    log.append([alert()])
    with pytest.raises(AlertLogError, match="full") as caught:
        log.append([alert("update", incident=1) for _ in range(1000)])
    assert "free space" in caught.value.hint
    kept = log.last
    assert numbers(whole(log)) == list(range(1, kept + 1))
    log._db.execute("PRAGMA max_page_count = 100000")
    log.append([alert()])
    assert log.last == kept + 1 == whole(log)[-1].incident


def test_reading_does_not_wait_for_a_commit_that_is_under_way(open_log: Open) -> None:
    reading: list[list[int]] = []

    def read_meanwhile(alerts: Sequence[Alert]) -> None:  # the writer still holds its lock
        thread = threading.Thread(target=lambda: reading.append(numbers(log.since(0, 10))))
        thread.start()
        thread.join(10.0)

    log = open_log(read_meanwhile)
    log.append([alert()])
    assert reading == [[1]]


def test_a_second_process_is_refused_until_the_first_has_closed(open_log: Open, path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from limpet.contracts.errors import AlertLogError\n"
        "from limpet.runtime.alert_log import AlertLog\n"
        "try: print(AlertLog(pathlib.Path(sys.argv[1]), print).last)\n"
        "except AlertLogError as error: print(error)\n"
    )

    def other_process() -> str:
        command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    log = open_log()
    log.append([alert()])
    assert other_process() == (
        f"alert log {path} is in use by another server\n"
        "  stop that server, or give this one another state_dir\n"
    )
    with pytest.raises(AlertLogError, match="in use"):
        open_log()
    log.close()
    assert other_process() == "1\n"


def write_over_fingerprint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE fingerprints SET direction = x'010203'")
        database.commit()


def write_over_body(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alerts SET body = substr(body, 1, 40)")
        database.commit()


def write_over_header(path: Path) -> None:
    path.write_bytes(b"no database, " * 1000)


def write_over_tables(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))


def other_schema(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE alerts (what TEXT)")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        write_over_body,
        write_over_fingerprint,
        write_over_header,
        write_over_tables,
        other_schema,
        make_a_folder,
    ],
)
def test_a_damaged_log_is_a_typed_error_and_holds_no_lock(
    open_log: Open, path: Path, damage: Callable[[Path], None]
) -> None:
    log = open_log()
    log.append([alert()], [along(0)])
    log.close()
    damage(path)
    with pytest.raises(AlertLogError, match=r"alerts\.db cannot be opened: ") as caught:
        open_log()
    assert "move a damaged file away" in caught.value.hint
    path.rename(path.with_suffix(".damaged"))
    assert open_log().last == 0


def test_damage_that_shows_only_on_reading_is_a_typed_error(open_log: Open, path: Path) -> None:
    log = open_log()
    log.append([alert()])
    write_over_body(path)
    with pytest.raises(AlertLogError, match="cannot be read: "):
        log.since(0, 10)


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AlertLogError, match="cannot be opened"):
        AlertLog(tmp_path / "file" / "alerts.db", lambda alerts: None)


def test_a_closed_log_takes_nothing(open_log: Open) -> None:
    log = open_log()
    log.close()
    log.close()
    with pytest.raises(AlertLogError, match="cannot be written"):
        log.append([alert()])
    assert log.last == 0
