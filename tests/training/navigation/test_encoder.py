"""The image encoder: what goes in and out, fresh weights, loading."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save

from limpet.contracts.errors import DataError
from limpet.contracts.images import ImagePreprocessing, normalize
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder, load_encoder
from limpet.training.run import WEIGHTS, RunFolder, RunRecord

CONFIG = NavigationConfig(width=4)


def images(number: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (number, 128, 128, 3), np.uint8)
    return torch.from_numpy(normalize(raw, ImagePreprocessing()))


def write_run(path: Path, encoder: Encoder, **changes: object) -> Path:
    record = RunRecord(
        kind="navigation",
        complete=True,
        config=msgspec.to_builtins(encoder.config),
        preprocessing=encoder.config.image,
    )
    path.mkdir()
    folder = RunFolder(path)
    folder.write_record(msgspec.structs.replace(record, **changes))
    folder.write(WEIGHTS, save(encoder.state_dict()))
    return path


def test_embeddings_are_float32_rows_of_unit_length() -> None:
    with torch.no_grad():
        embedded = Encoder(NavigationConfig()).eval()(images(3))
    assert embedded.shape == (3, 128)
    assert embedded.dtype == torch.float32
    np.testing.assert_allclose(embedded.norm(dim=1), 1.0, atol=1e-6)


def test_fresh_weights_follow_from_the_seed_and_leave_torch_s_own_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = Encoder(CONFIG).state_dict(), Encoder(CONFIG).state_dict()
    other = Encoder(msgspec.structs.replace(CONFIG, seed=1)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])


def test_an_embedding_knows_where_in_the_image_something_stands() -> None:
    image = torch.zeros(1, 3, 128, 128)
    image[:, :, 40:90, 10:50] = 2.0
    with torch.no_grad():
        left, right = Encoder(NavigationConfig()).eval()(torch.cat([image, image.flip(3)]))
    assert float(left @ right) < 0.999


def test_the_default_encoder_leaves_room_for_a_policy_within_3_mb() -> None:
    weights = sum(tensor.numel() for tensor in Encoder(NavigationConfig()).parameters())
    assert 4 * weights < 2.5e6


def test_a_run_s_encoder_is_loaded_ready_to_use(tmp_path: Path) -> None:
    trained = Encoder(CONFIG)
    with torch.no_grad():
        trained(images(4))  # moves the batch statistics
    loaded = load_encoder(write_run(tmp_path / "run", trained))
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images(2)), trained.eval()(images(2)))


def test_what_is_no_finished_navigation_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a RUN"):
        load_encoder(tmp_path)
    with pytest.raises(DataError, match="is not finished"):
        load_encoder(write_run(tmp_path / "unfinished", Encoder(CONFIG), complete=False))
    with pytest.raises(DataError, match="of kind 'anomaly', wanted 'navigation'"):
        load_encoder(write_run(tmp_path / "anomaly", Encoder(CONFIG), kind="anomaly"))
    wider = msgspec.to_builtins(NavigationConfig(width=8))
    with pytest.raises(DataError, match="does not fit its run"):
        load_encoder(write_run(tmp_path / "wider", Encoder(CONFIG), config=wider))
