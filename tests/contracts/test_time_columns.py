"""Times of a CSV's rows: how they are spelt, and what is told where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts import csv_tables
from limpet.contracts.recordings import load_recording
from tests.contracts.conftest import Write

NO_TIME_COLUMN = "no time column: taking 1 Hz, say --rate-hz"


class TestTimes:
    @pytest.mark.parametrize(
        ("cell", "expected"),
        [
            ("2020-03-01 15:44:06", "2020-03-01T15:44:06"),
            ("2020-03-01T15:44", "2020-03-01T15:44"),
            ("2020/03/01 15:44:06.25", "2020-03-01T15:44:06.25"),
            ('"2020-03-01 15:44:06,123456789"', "2020-03-01T15:44:06.123456789"),
            ("2020-03-01T15:44:06Z", "2020-03-01T15:44:06"),
            ("2020-03-01T15:44:06+01:00", "2020-03-01T14:44:06"),
            ("2020-03-01 15:44:06-0530", "2020-03-01T21:14:06"),
            ("2020-03-01 15:44:06 UTC", "2020-03-01T15:44:06"),
            ("2020-03-01", "2020-03-01"),
        ],
    )
    def test_datetimes_are_read_under_any_name_and_naive_ones_are_utc(
        self, write: Write, cell: str, expected: str
    ) -> None:
        found = load_recording(write("a.csv", f"when it was,v\n{cell},1\n{cell},2\n"))
        assert found.times_ns is not None
        assert np.datetime64(int(found.times_ns[0]), "ns") == np.datetime64(expected)
        assert found.channels == ("v",)

    @pytest.mark.parametrize("name", ["time", "Timestamp", "t", "datetime", "date", "unix time"])
    @pytest.mark.parametrize("unit_ns", [10**9, 10**6, 10**3, 1])
    def test_unix_times_are_exact_in_every_unit(
        self, write: Write, name: str, unit_ns: int
    ) -> None:
        start_ns = 1_583_077_446_000_000_000
        times_ns = [start_ns + i * 2 * 10**9 + (i if unit_ns == 1 else 0) for i in range(4)]
        rows = "".join(f"{time_ns // unit_ns},{i % 2}\n" for i, time_ns in enumerate(times_ns))
        found = load_recording(write("a.csv", f"{name},v\n{rows}"))
        assert found.times_ns is not None
        assert found.times_ns.tolist() == times_ns
        assert found.rate_hz == pytest.approx(0.5)

    def test_nanoseconds_stay_exact_in_large_files(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_tables, "_FIRST_BLOCK_CHARS", 50)
        monkeypatch.setattr(csv_tables, "_BLOCK_CHARS", 50)
        times_ns = [1_583_077_446_000_000_001 + i * 1_000_003 for i in range(50)]
        rows = "".join(f"{time_ns},{i % 7}.5\n" for i, time_ns in enumerate(times_ns))
        found = load_recording(write("a.csv", f"stamp,v\n{rows}"))
        assert found.times_ns is not None
        assert found.times_ns.tolist() == times_ns

    @pytest.mark.parametrize(
        ("name", "rate_hz"), [("time_ms", 100.0), ("time [us]", 1e5), ("t (s)", 0.1), ("time", 0.1)]
    )
    def test_a_unit_in_the_name_comes_before_the_magnitude(
        self, write: Write, name: str, rate_hz: float
    ) -> None:
        found = load_recording(write("a.csv", f"{name},v\n0,1\n10,2\n20,3\n"))
        assert found.rate_hz == pytest.approx(rate_hz)

    def test_seconds_with_decimals_give_the_rate(self, write: Write) -> None:
        rows = "".join(f"{i / 50:.3f},{i % 3}\n" for i in range(20))
        found = load_recording(write("a.csv", f"t,v\n{rows}"))
        assert found.rate_hz == pytest.approx(50)
        assert found.left_out == ("t (time)",)

    def test_a_column_named_t_that_falls_is_a_channel_and_says_so(self, write: Write) -> None:
        found = load_recording(write("a.csv", "t,v\n20.5,1\n20.4,2\n20.6,3\n"))
        assert found.channels == ("t", "v")
        assert found.rate_hz == 1.0
        assert "column 't' does not ascend: taken as a channel, not as time" in found.warnings

    def test_ascending_numbers_under_another_name_are_a_channel(self, write: Write) -> None:
        assert load_recording(write("a.csv", "flow,v\n0,1\n1,2\n")).channels == ("flow", "v")

    def test_a_second_time_column_is_left_out(self, write: Write) -> None:
        text = "at,time,received,v\n2020-01-01,0,2020-01-01,1\n2020-01-02,9,2020-01-02,2\n"
        found = load_recording(write("a.csv", text))
        assert found.left_out == (
            "at (time)",
            "time (time, not used)",
            "received (time, not used)",
        )
        assert found.rate_hz == pytest.approx(1 / 86_400)

    def test_the_rate_is_the_median_step_and_an_override_wins(self, write: Write) -> None:
        path = write("a.csv", "time,v\n0,1\n0.1,2\n0.2,3\n9,4\n")
        assert load_recording(path).rate_hz == pytest.approx(10)
        assert load_recording(path, rate_hz=12.5).rate_hz == 12.5

    def test_times_coarser_than_the_rows_give_the_mean_rate(self, write: Write) -> None:
        rows = "".join(f"2020-01-01 00:00:{i // 10:02},{i % 3}\n" for i in range(101))
        found = load_recording(write("a.csv", f"time,v\n{rows}"))
        assert found.rate_hz == pytest.approx(10)
        assert "taking the mean rate" in found.warnings[0]

    def test_missing_times_are_used_for_the_rate_only(self, write: Write) -> None:
        found = load_recording(
            write("a.csv", "time,v\n2020-01-01 00:00:00,1\n,2\n2020-01-01 00:00:04,3\n"
                  "2020-01-01 00:00:06,4\n")
        )  # fmt: skip
        assert found.times_ns is None
        assert found.rate_hz == 0.5
        assert "1 rows have no time (first: row 1)" in found.warnings[0]

    def test_without_times_or_rate_one_hertz_is_announced(self, write: Write) -> None:
        path = write("a.csv", "v\n1\n2\n")
        assert load_recording(path).warnings == (NO_TIME_COLUMN,)
        assert load_recording(path, rate_hz=5).warnings == ()
        single = load_recording(write("b.csv", "time,v\n2020-01-01,1\n"))
        assert single.warnings == ("the times give no rate: taking 1 Hz, say --rate-hz",)
