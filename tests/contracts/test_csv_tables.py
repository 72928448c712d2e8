"""CSV in all its spellings, and every way for it to be bad."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from limpet.contracts import csv_tables
from limpet.contracts.errors import DataError, UsageError
from limpet.contracts.recordings import load_recording
from tests.contracts.conftest import Write

in_any_folder = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refusal(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_recording(path, **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return str(caught.value)


class TestCsvSpelling:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "   ", ", ", " ; "])
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("header", [True, False])
    def test_every_delimiter_and_line_end_is_found(
        self, write: Write, delimiter: str, newline: str, header: bool
    ) -> None:
        rows = [["1", "-2.5", "3e2"], ["4.25", "5", "inf"]]
        lines = [delimiter.join(row) for row in ([["a", "b", "c"]] if header else []) + rows]
        found = load_recording(write("a.csv", newline.join(lines) + newline))
        assert found.channels == (("a", "b", "c") if header else ("c0", "c1", "c2"))
        assert found.values.tolist() == [[1, -2.5, 300], [4.25, 5, np.inf]]

    def test_a_byte_order_mark_is_no_part_of_the_first_name(self, write: Write) -> None:
        assert load_recording(write("a.csv", b"\xef\xbb\xbfa,b\n1,2\n")).channels == ("a", "b")

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_a_decimal_comma_is_read_where_semicolons_or_tabs_separate(
        self, write: Write, delimiter: str
    ) -> None:
        text = "t;v\n0,5;1,25\n1,0;-2,5e3\n"
        found = load_recording(write("a.csv", text.replace(";", delimiter)))
        assert found.channels == ("v",)
        assert found.values.tolist() == [[1.25], [-2500]]
        assert found.rate_hz == 2.0

    def test_quoted_cells_may_hold_delimiters_quotes_and_line_ends(self, write: Write) -> None:
        text = 'value,"flow, ""main""\nl/min",note\n1,"2","on, off"\n3,4,"two\nlines"\n'
        found = load_recording(write("a.csv", text))
        assert found.channels == ("value", 'flow, "main"\nl/min')
        assert found.values.tolist() == [[1, 2], [3, 4]]
        assert found.left_out == ("note (not numeric)",)

    def test_blank_lines_are_no_rows_and_keep_the_line_numbers(self, write: Write) -> None:
        found = load_recording(write("a.csv", "\na,b\n\n1,2\n   \n3,4\n\n\n"))
        assert found.values.tolist() == [[1, 2], [3, 4]]
        assert "line 6, column 'b': 'x4'" in refusal(
            write("b.csv", "\na,b\n\n1,2\n   \n3,x4\n5,6\n\n")
        )

    def test_a_single_column_keeps_quoted_empty_cells_and_skips_blank_lines(
        self, write: Write
    ) -> None:
        found = load_recording(write("a.csv", 'v\n1\n""\n\n  \n2\n'))
        np.testing.assert_array_equal(found.values, [[1], [np.nan], [2]])

    @pytest.mark.parametrize("spelling", ["", "nan", "NaN", "NA", "null", "None", "n/a", "?", "-"])
    def test_each_spelling_of_a_missing_value_is_nan(self, write: Write, spelling: str) -> None:
        found = load_recording(write("a.csv", f"a,b\n1,2\n{spelling},3\n4,{spelling}\n"))
        np.testing.assert_array_equal(found.values, [[1, 2], [np.nan, 3], [4, np.nan]])

    def test_repeated_and_empty_names_are_made_unique(self, write: Write) -> None:
        found = load_recording(write("a.csv", "a,a,a_2,,a\n1,2,3,4,5\n1,2,3,9,5\n"))
        assert found.channels == ("a", "a_3", "a_2", "c3", "a_4")
        assert "column name 'a' is repeated: column 2 is 'a_3'" in found.warnings

    def test_an_unnamed_row_number_is_no_channel(self, write: Write) -> None:
        found = load_recording(write("a.csv", ",a\n0,5\n1,6\n2,5\n"))
        assert found.channels == ("a",)
        assert found.left_out == ("c0 (row number)",)

    def test_names_in_a_comment_line_are_the_header(self, write: Write, tmp_path: Path) -> None:
        np.savetxt(tmp_path / "a.txt", [[1, 2], [3, 4]], header="made by numpy\nforce torque")
        found = load_recording(tmp_path / "a.txt")
        assert found.channels == ("force", "torque")
        assert found.values.tolist() == [[1, 2], [3, 4]]
        assert "line 3, column 'b': 'x'" in refusal(write("b.csv", "# log\na,b\n1,x\n2,3\n4,5\n"))

    def test_a_first_row_of_numbers_is_data(self, write: Write) -> None:
        assert len(load_recording(write("a.csv", "0,1,2\n3,4,5\n"))) == 2
        assert len(load_recording(write("b.csv", "pump,1.5\npump,2.5\n"))) == 2
        assert len(load_recording(write("c.csv", "2020-01-01,1.5\n2020-01-02,2.5\n"))) == 2

    def test_a_typing_error_in_the_first_row_does_not_make_it_a_header(self, write: Write) -> None:
        message = refusal(write("a.csv", "1.o,2.5\n1.1,2.5\n1.2,2.5\n"))
        assert "line 1, column 'c0': '1.o' is not a number" in message
        assert "header" in message

    def test_text_and_empty_columns_are_left_out_and_listed(self, write: Write) -> None:
        found = load_recording(write("a.csv", "a,note,empty,b\n1,ok,,2\n3,7,NaN,4\n5,bad,,6\n"))
        assert found.channels == ("a", "b")
        assert found.left_out == ("note (not numeric)", "empty (empty)")

    @given(
        rows=st.lists(
            st.lists(
                st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-9, 9)),
                min_size=3,
                max_size=3,
            ),
            min_size=1,
            max_size=12,
        ),
        delimiter=st.sampled_from([",", ";", "\t", "|"]),
        newline=st.sampled_from(["\n", "\r\n"]),
        header=st.booleans(),
        block_chars=st.integers(1, 60),
    )
    @in_any_folder
    def test_numbers_survive_any_delimiter_and_any_size_of_block(
        self,
        tmp_path: Path,
        rows: list[list[float | None]],
        delimiter: str,
        newline: str,
        header: bool,
        block_chars: int,
    ) -> None:
        rows = [[1.5, -2.0, 0.25], *rows]  # so that every column is one of numbers
        lines = [delimiter.join("" if v is None else repr(v) for v in row) for row in rows]
        path = tmp_path / "a.csv"
        text = newline.join([delimiter.join("xyz")] * header + lines)
        path.write_text(text, newline="")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_tables, "_FIRST_BLOCK_CHARS", 40)
            patch.setattr(csv_tables, "_BLOCK_CHARS", block_chars)
            found = load_recording(path)
        expected = [[np.nan if v is None else float(v) for v in row] for row in rows]
        np.testing.assert_array_equal(found.values, expected)
        assert found.channels == (("x", "y", "z") if header else ("c0", "c1", "c2"))

    @given(content=st.binary(max_size=200) | st.text(alphabet='1.,;- \t\n\r"#ax:T', max_size=60))
    @example(content=b"\xff\xfea\x00,\x00")
    @example(content=b"a,b\n1,\x00\n")
    @example(content='a,b\n1,"2\n3,4\n')
    @in_any_folder
    def test_any_bytes_are_read_or_refused(self, tmp_path: Path, content: bytes | str) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            found = load_recording(path)
        except DataError:
            return
        assert found.values.shape == (len(found), len(found.channels))
        assert len(found) > 0


class TestBlocks:
    """The first block settles the columns; what comes later must fit."""

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(csv_tables, "_FIRST_BLOCK_CHARS", 20)
        monkeypatch.setattr(csv_tables, "_BLOCK_CHARS", 30)

    def test_a_column_that_begins_empty_is_read_from_where_it_begins(self, write: Write) -> None:
        text = "a,b,time\n" + "1,,\n" * 30 + "2,7,2020-01-01 00:00\n" * 3
        found = load_recording(write("a.csv", text))
        np.testing.assert_array_equal(found.values[:, 1], [np.nan] * 30 + [7] * 3)
        assert found.times_ns is None
        assert found.left_out == ("time (time)",)
        assert any("30 rows have no time" in warning for warning in found.warnings)

    def test_line_numbers_count_through_blocks_blank_lines_and_quoted_line_ends(
        self, write: Write
    ) -> None:
        text = "a,b,note\n" + "1,2,x\n" * 10 + '1,2,"two\nlines"\n\n' + "1,2,x\n" * 10 + "1,2 m,x\n"
        assert "line 25, column 'b': '2 m' is not a number" in refusal(write("a.csv", text))

    @pytest.mark.parametrize("bad", ["1_000", "0x10", "१२", "1,5", "12:30", "1 2"])
    def test_what_only_python_takes_for_a_number_is_refused_in_any_block(
        self, write: Write, bad: str
    ) -> None:
        for before in (3, 40):
            text = "a;b\n" + "1.5;2\n" * before + f"{bad.replace(',', '.5.')};3\n" + "1.5;2\n" * 40
            assert f"line {before + 2}, column 'a'" in refusal(write("a.csv", text))

    def test_quoted_line_ends_may_span_blocks(self, write: Write) -> None:
        text = (
            "a,note\n" + "1,x\n" * 8 + f'2,"{"long line" * 9}\n{"long line" * 9}"\n' + "3,x\n" * 9
        )
        assert load_recording(write("a.csv", text)).values[:, 0].tolist() == [1] * 8 + [2] + [3] * 9

    def test_a_row_too_short_is_found_in_a_later_block(self, write: Write) -> None:
        text = "a,b\n" + "1,2\n" * 40 + "1\n" + "1,2\n" * 9
        assert "line 42: 1 cell, wanted 2" in refusal(write("a.csv", text))

    def test_a_gap_between_spaces_is_no_missing_value(self, write: Write) -> None:
        text = "1 2 3\n" * 20 + "1  3\n" + "1 2 3\n" * 20
        assert "line 21: 2 cells, wanted 3" in refusal(write("a.txt", text))

    def test_a_bad_time_of_day_is_refused(self, write: Write) -> None:
        rows = [f"2020-01-01,00:00:{i:02},{i}\n" for i in range(60)]
        for bad in (1, 50):
            text = "".join([*rows[:bad], "2020-01-01,noon,1\n", *rows[bad:]])
            assert "'2020-01-01 noon' is not a datetime" in refusal(write("a.csv", text))

    def test_dates_and_times_of_day_are_joined_in_every_block(self, write: Write) -> None:
        rows = [f"2020-01-01,00:00:{i:02}.5,{i},0" for i in range(60)]
        found = load_recording(write("a.csv", "date,time,v,anomaly\n" + "\n".join(rows)))
        assert found.channels == ("v",)
        assert found.left_out == ("date (time)", "time (time of day)", "anomaly (label)")
        assert found.times_ns is not None
        start_ns = np.datetime64("2020-01-01T00:00:00.5", "ns").astype(np.int64)
        assert (found.times_ns == start_ns + np.arange(60) * 10**9).all()


class TestCsvRefusals:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("", "is empty"),
            ("\n \n", "is empty"),
            ("a,b\n", "has a header and no rows"),
            ("note\nx\ny\n", "no numeric column to take as a channel"),
            ("datetime,anomaly\n2020-01-01,0\n", "columns: datetime (time), anomaly (label)"),
            ("a,b\n1,2\n1,2,3\n4,5\n", "line 3: 3 cells, wanted 2"),
            ("a,b\n1,2\n1,2\n3", "line 4: 1 cell, wanted 2\n  the last line is cut short"),
            ("a,b\n1,2\n1,oops\n3,4\n", "line 3, column 'b': 'oops' is not a number"),
            ("t,b\n2020-01-01,2\n2020-13-01,3\n2020-01-03,3\n", "'2020-13-01' is not a datetime"),
            ('a,b\n1,2\n3,"4\n5,6\n', "line 3: unexpected end of data"),
        ],
    )
    def test_the_message_names_the_place(self, write: Write, text: str, wanted: str) -> None:
        assert wanted in refusal(write("a.csv", text))

    def test_a_bad_cell_tells_how_to_go_on_and_ignoring_its_column_works(
        self, write: Write
    ) -> None:
        path = write("a.csv", "a,b\n1,2\n1,oops\n3,4\n")
        assert "--ignore 'b'" in refusal(path)
        found = load_recording(path, ignore=["b"])
        assert found.channels == ("a",)
        assert found.left_out == ("b (ignored)",)

    @pytest.mark.parametrize("option", ["ignore", "label"])
    def test_an_unknown_column_is_refused_with_the_columns(self, write: Write, option: str) -> None:
        wanted = ["speed"] if option == "ignore" else "speed"
        message = refusal(write("a.csv", "time,force\n0,1\n1,2\n"), **{option: wanted})
        assert f"--{option} speed: no such column" in message
        assert "columns: time, force" in message

    def test_other_encodings_are_named_with_line_and_remedy(self, write: Write) -> None:
        message = refusal(write("a.csv", "a,b °C\n1,2\n".encode("latin1")))
        assert "line 1: byte 0xb0 is not UTF-8" in message
        assert "iconv" in message
        assert "is UTF-16" in refusal(write("b.csv", "a,b\n1,2\n".encode("utf-16")))

    def test_a_rate_must_be_positive(self, write: Write) -> None:
        for rate_hz in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(UsageError, match="--rate-hz"):
                load_recording(write("a.csv", "a\n1\n"), rate_hz=rate_hz)

    def test_a_key_is_for_npz_alone(self, write: Write) -> None:
        with pytest.raises(UsageError, match="--key a"):
            load_recording(write("a.csv", "a\n1\n"), key="a")


def test_a_hundred_thousand_rows_take_less_than_three_seconds(tmp_path: Path) -> None:
    row = ",".join(f"{0.123456 * (i + 1):.6f}" for i in range(10))
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join("abcdefghij"), *[row] * 100_000]))
    start_s = time.process_time()
    found = load_recording(path)
    assert time.process_time() - start_s < 3.0  # 0.4 s on a slow core
    assert found.values.shape == (100_000, 10)
    assert found.values[-1, 0] == 0.123456
