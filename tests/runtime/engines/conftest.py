"""The bundle whose streams keep a state, as tests of TensorRT's engine run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.contracts.bundle import Bundle
from tests.bundles import anomaly_bundle
from tests.runtime.engines.trt_engines import MEMORY


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return anomaly_bundle(tmp_path / "pump", memory=MEMORY)
