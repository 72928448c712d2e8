"""A configuration that this machine cannot serve is refused, with the arithmetic."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from limpet.contracts.errors import ConfigError
from limpet.runtime.admission import Load, find_overloads, usable_cores
from limpet.runtime.config import ModelConfig, ServerConfig, ServerSection
from limpet.runtime.models import ServedModel, check_load
from limpet.runtime.server import Server
from tests.bundles import identity_bundle


def load(name: str, rate_hz: float, p99_ms: float, **more: Any) -> Load:
    return Load(
        name=name, rate_hz=rate_hz, p99_ms=p99_ms, **{"deadline_ms": None, "threads": 1, **more}
    )


def test_what_fits_is_accepted_up_to_the_last_millisecond() -> None:
    assert find_overloads([], cores=1) == []
    assert find_overloads([load("a", 20.0, 50.0)], cores=1) == []
    both = [load("a", 20.0, 25.0), load("b", 10.0, 50.0)]
    assert find_overloads(both, cores=1) == []


def test_a_model_that_is_asked_for_more_than_it_can_do_is_said() -> None:
    (rate,) = find_overloads([load("grasp", 5.0, 250.0, deadline_ms=300.0)], cores=8)
    assert rate == (
        "model 'grasp': 5 requests/s x 250 ms (p99) = 1.25 s of work a second, and it runs one at "
        "a time: at most 1"
    )


def test_a_run_that_takes_longer_than_its_deadline_is_said() -> None:
    (late,) = find_overloads([load("nav", 2.0, 60.0, deadline_ms=50.0)], cores=8)
    assert late == ("model 'nav': one run takes 60 ms (p99), its answer is due within 50 ms")


def test_models_that_fit_alone_and_not_together_are_said() -> None:
    loads = [load("a", 20.0, 30.0), load("b", 10.0, 40.0, threads=2)]
    assert find_overloads(loads, cores=2) == []
    (total,) = find_overloads(loads, cores=1)
    assert total == (
        "all models: 20/s x 30 ms + 10/s x 40 ms x 2 threads = 1.40 s of work a second, of 1 cores"
    )


def test_deadlines_that_collide_are_said_though_there_is_time_enough_on_average() -> None:
    loads = [
        load("a", 1.0, 30.0, deadline_ms=50.0),
        load("b", 1.0, 30.0, deadline_ms=50.0),
        load("c", 1.0, 1.0, deadline_ms=1.5),
    ]
    assert find_overloads(loads, cores=2) == []
    (late,) = find_overloads(loads, cores=1)
    assert late == (
        "within 50 ms must be finished: 1 x a 30 ms + 1 x b 30 ms + 1 x c 1 ms = 61 ms, and 1 "
        "cores do 50 ms"
    )


def test_a_window_counts_every_run_that_must_end_in_it() -> None:
    fast, slow = (
        load("fast", 100.0, 6.0, deadline_ms=10.0),
        load("slow", 2.0, 30.0, deadline_ms=60.0),
    )
    (late,) = find_overloads([fast, slow], cores=1)
    assert "6 x fast 6 ms + 1 x slow 30 ms = 66 ms" in late


def served(path: Path, **options: Any) -> dict[str, ServedModel]:
    model = ServedModel(ModelConfig(bundle=str(identity_bundle(path / "identity").path), **options))
    model.measured_p99_ns = 20_000_000
    return {"identity": model}


def test_only_what_is_declared_is_checked(tmp_path: Path) -> None:
    check_load(served(tmp_path), "refuse")


def test_a_server_refuses_or_warns_as_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_load(served(tmp_path, rate_hz=40.0), "refuse")
    models = served(tmp_path / "more", rate_hz=100.0, deadline_ms=100.0)
    with pytest.raises(ConfigError, match=r"100 requests/s x 20 ms \(p99\) = 2.00 s") as caught:
        check_load(models, "refuse")
    assert 'when_overloaded = "warn"' in caught.value.hint
    with caplog.at_level(logging.WARNING):
        check_load(models, "warn")
    assert "cannot serve what is declared" in caplog.text


def test_an_overloaded_configuration_starts_no_server_and_leaves_no_endpoint_bound(
    tmp_path: Path,
) -> None:
    bundle = identity_bundle(tmp_path / "identity").path
    config = ServerConfig(
        server=ServerSection(
            listen=("tcp://127.0.0.1:0",), publish=("tcp://127.0.0.1:0",), state_dir=str(tmp_path)
        ),
        models=[ModelConfig(bundle=str(bundle), rate_hz=1e6, deadline_ms=1e-3)],
    )
    with pytest.raises(ConfigError, match="model 'identity': one run takes"):
        Server(config)
    assert not (tmp_path / "alerts.db").exists()


def test_cores_are_those_that_this_process_may_use() -> None:
    assert usable_cores() >= 1
