"""Configuration files: what is read, and where the fault lies in one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.correlation import GroupingConfig
from limpet.contracts.errors import ConfigError
from limpet.runtime.config import DetectorConfig, StreamConfig, load_config
from tests.runtime.config_files import MODEL, fault, load


def test_a_bundle_is_all_that_a_configuration_needs(tmp_path: Path) -> None:
    config = load(tmp_path, MODEL)
    assert config.server.listen == ("tcp://127.0.0.1:7700",)
    assert config.streams == (StreamConfig(),)
    assert [model.engine for model in config.models] == ["auto"]


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [server]
        name = "arm"
        listen = ["tcp://127.0.0.1:1"]
        publish = ["tcp://127.0.0.1:2"]
        allow_network = true
        heartbeat_s = 0.5
        max_message_mb = 2
        max_streams = 3
        drain_s = 4
        cores = [0, 2]
        realtime_priority = 10
        [[models]]
        bundle = "/b"
        name = "m"
        engine = "onnxruntime"
        threads = 2
        stream_threads = 3
        queue = 5
        max_batch = 6
        [[streams]]
        match = "press-*"
        model = "m"
        silent_after_s = 7.5
        [streams.detector]
        threshold = 3
        release_threshold = 2.5
        open_after_rows = 1
        close_after_rows = 2
        update_every_rows = 3
        [[streams]]
        [grouping]
        enabled = false
        horizon_s = 90
        agreement = 0.5
        across_models = true
        """,
    )
    server, (model,) = config.server, config.models
    assert (server.name, server.listen, server.publish) == (
        "arm",
        ("tcp://127.0.0.1:1",),
        ("tcp://127.0.0.1:2",),
    )
    assert (server.cores, server.realtime_priority) == ((0, 2), 10)
    assert (server.heartbeat_s, server.max_message_mb, server.max_streams, server.drain_s) == (
        0.5,
        2,
        3,
        4.0,
    )
    assert (model.name, model.engine, model.threads) == ("m", "onnxruntime", 2)
    assert (model.stream_threads, model.queue, model.max_batch) == (
        3,
        5,
        6,
    )
    assert config.streams == (
        StreamConfig(
            match="press-*",
            model="m",
            silent_after_s=7.5,
            detector=DetectorConfig(
                threshold=3.0,
                release_threshold=2.5,
                open_after_rows=1,
                close_after_rows=2,
                update_every_rows=3,
            ),
        ),
        StreamConfig(),
    )
    assert config.grouping == GroupingConfig(
        enabled=False, horizon_s=90.0, agreement=0.5, across_models=True
    )


def test_relative_paths_count_from_the_file_and_absolute_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "robots"
    folder.mkdir()
    (folder / "server.toml").write_text(
        "[server]\nlisten = ['ipc://run/requests']\npublish = ['ipc:///run/alerts']\n"
        "[[models]]\nbundle = '../bundles/a'\n[[models]]\nbundle = '/bundles/b'\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("robots/server.toml")
    assert config.server.listen == (f"ipc://{folder}/run/requests",)
    assert config.server.publish == ("ipc:///run/alerts",)
    assert config.server.state_dir == f"{folder}/state"
    assert [m.bundle for m in config.models] == [f"{folder}/../bundles/a", "/bundles/b"]


def test_a_tilde_stands_for_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    config = load(tmp_path, "[server]\nstate_dir = '~/state'\n[[models]]\nbundle = '~/b'\n")
    assert config.server.state_dir == "/home/robot/state"
    assert config.models[0].bundle == "/home/robot/b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "1: Object missing required field `models` (at top)", id="empty"),
        pytest.param(
            "models = []", "1: Expected `array` of length >= 1 (at models)", id="no model"
        ),
        pytest.param(
            "[[models]]\nname = 'a'\n",
            "1: Object missing required field `bundle` (at models[0])",
            id="required key",
        ),
        pytest.param(
            f"\n[servr]\n{MODEL}",
            "2: Object contains unknown field `servr` (at servr)\n  did you mean 'server'?",
            id="unknown table",
        ),
        pytest.param(
            f"[server]\nnane = 'x'\n{MODEL}",
            "2: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="unknown key",
        ),
        pytest.param(
            f"{MODEL}colour = 1\n",
            "3: Object contains unknown field `colour` (at models[0].colour)\n"
            "  known: bundle, name, engine, threads, stream_threads, queue, max_batch, together, "
            "rate_hz, deadline_ms",
            id="unknown key like no other",
        ),
        pytest.param(
            f"{MODEL}\n{MODEL}thread = 2\n",
            "6: Object contains unknown field `thread` (at models[1].thread)\n"
            "  did you mean 'threads'?",
            id="second table of an array",
        ),
        pytest.param(
            f"{MODEL}[[streams]]\n[streams.detector]\nthreshold = 1\n"
            "[[streams]]\n[streams.detector]\nopen_after = 3\n",
            "8: Object contains unknown field `open_after` (at streams[1].detector.open_after)\n"
            "  did you mean 'open_after_rows'?",
            id="table within the second table of an array",
        ),
        pytest.param(
            f"{MODEL}[grouping]\nhorizon = 3\n",
            "4: Object contains unknown field `horizon` (at grouping.horizon)\n"
            "  did you mean 'horizon_s'?",
            id="key of grouping",
        ),
        pytest.param(
            f"{MODEL}[grouping]\nagreement = 2\n",
            "4: Expected `float` <= 1.0 (at grouping.agreement)",
            id="no cosine",
        ),
        pytest.param(
            f"{MODEL}[[streams]]\nmatch = '*'\ndetector.close_after_rows = 'x'\n",
            "5: Expected `int`, got `str` (at streams[0].detector.close_after_rows)",
            id="dotted key",
        ),
        pytest.param(
            f"server.nane = 'x'\n{MODEL}",
            "1: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="dotted key before any table",
        ),
        pytest.param(
            f"\nserver = {{ max_streams = 0 }}\n{MODEL}",
            "2: Expected `int` >= 1 (at server.max_streams)",
            id="inline table",
        ),
        pytest.param(
            "models = [\n  { bundle = 'a' },\n  { bundle = 'b', thread = 2 },\n]\n",
            "1: Object contains unknown field `thread` (at models[1].thread)\n"
            "  did you mean 'threads'?",
            id="inline table in an array",
        ),
        pytest.param(
            f"[server]\nlisten = [\n  'tcp://127.0.0.1:1',\n  2,\n]\n{MODEL}",
            "2: Expected `str`, got `int` (at server.listen[1])",
            id="array over several lines",
        ),
        pytest.param(
            "[models]\nbundle = 'b'\n",
            "1: Expected `array`, got `object` (at models)\n"
            "  a table of which there may be several has two brackets: [[models]]",
            id="one bracket too few",
        ),
        pytest.param(
            f"{MODEL}[streams.detector]\nthreshold = 1\n",
            "3: Expected `array`, got `object` (at streams)\n"
            "  a table of which there may be several has two brackets: [[streams]]",
            id="table within no table",
        ),
        pytest.param(
            f"[[server]]\n{MODEL}",
            "1: Expected `object`, got `array` (at server)",
            id="one bracket too many",
        ),
        pytest.param(
            f"{MODEL}engine = 'tensorflow'\n",
            "3: Invalid enum value 'tensorflow' (at models[0].engine)\n  "
            "one of: auto, onnxruntime, tensorrt, tensorrt-rtx",
            id="none of the alternatives",
        ),
        pytest.param(
            f"{MODEL}threads = true\n",
            "3: Expected `int`, got `bool` (at models[0].threads)",
            id="wrong type",
        ),
        pytest.param(
            f"{MODEL}threads = 0\n", "3: Expected `int` >= 1 (at models[0].threads)", id="too small"
        ),
        pytest.param(
            f"[server]\nmax_message_mb = 1025\n{MODEL}",
            "2: Expected `int` <= 1024 (at server.max_message_mb)",
            id="too large",
        ),
        pytest.param(
            f"[server]\nheartbeat_s = inf\n{MODEL}",
            "2: Expected `float` <= 3600.0 (at server.heartbeat_s)",
            id="infinite interval",
        ),
        pytest.param(
            f"[server]\ndrain_s = nan\n{MODEL}",
            "2: Expected `float` > 0.0 (at server.drain_s)",
            id="time that is no number",
        ),
        pytest.param(
            f"{MODEL}[[streams]]\ndetector.threshold = nan\n",
            "4: Expected `float` >= -1e+30 (at streams[0].detector.threshold)",
            id="threshold that nothing reaches",
        ),
        pytest.param(
            f"# [server]\n# nane = 1\n[ server ] # [models]\n  nane = 1 # nane = 2\n{MODEL}",
            "4: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="comments and spaces",
        ),
        pytest.param(
            f"[server]\nname = '[[models]] x = 1'\nstate_dir = \"[a] = 'b'\"\nlisten = 1\n{MODEL}",
            "4: Expected `array`, got `int` (at server.listen)",
            id="brackets and equals signs in strings",
        ),
        pytest.param(
            f"[server]\nname = '''\n[models]\nlisten = 1\n'''\nlisten = 1\n{MODEL}",
            "6: Expected `array`, got `int` (at server.listen)",
            id="what looks like tables in a string over several lines",
        ),
        pytest.param(
            f"[\"server\"]\n'nane' = 1\n{MODEL}",
            "2: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="quoted keys",
        ),
        pytest.param(
            f'[server]\n"a[b" = 1\n{MODEL}',
            "2: Object contains unknown field `a[b` (at server.a[b)\n"
            "  known: name, listen, publish, allow_network, state_dir, heartbeat_s, "
            "max_message_mb, lane_mb, max_streams, when_overloaded, drain_s, cores, "
            "realtime_priority",
            id="key with a bracket",
        ),
        pytest.param(
            f"[server]\r\n\r\nnane = 1\r\n{MODEL}",
            "3: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="CRLF",
        ),
        pytest.param(
            f"# \u2028 is no end of a line\n[server]\nnane = 1\n{MODEL}",
            "3: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="line separators that TOML does not know",
        ),
        pytest.param(
            f"\ufeff[server]\nnane = 1\n{MODEL}",
            "2: Object contains unknown field `nane` (at server.nane)\n  did you mean 'name'?",
            id="byte order mark",
        ),
    ],
)
def test_a_fault_is_told_with_its_line_and_a_way_out(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert fault(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server\n", 1),
        ("\n\nx =\n", 3),
        ("[server]\nname = 'a'\nname = 'b'\n", 3),
        ("\na = '''", 2),
    ],
    ids=["header", "value", "key twice", "end"],
)
def test_text_that_is_no_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert fault(tmp_path, text).startswith(f"{line}: not valid TOML: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml: cannot be read"):
        load_config(tmp_path / "binary.toml")
