"""Encoder and policy as one ONNX graph: ONNX Runtime drives as PyTorch does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from limpet.contracts.tensors import TensorSpec
from limpet.export.graph import to_onnx
from limpet.training.navigation.config import NavigationConfig
from limpet.training.navigation.encoder import Encoder
from limpet.training.navigation.policy import Actor, NavigationModel
from limpet.training.navigation.robot import Robot


def spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=["batch", *shape])


def test_onnx_runtime_embeds_and_drives_as_pytorch_does() -> None:
    encoder = Encoder(NavigationConfig(width=4)).eval()
    model = NavigationModel(encoder, Actor(128, 16, Robot())).eval()
    content = to_onnx(
        model,
        [spec("image", 3, 128, 128), spec("goal", 3), spec("proprioception", 2)],
        [spec("embedding", 128), spec("action", 2)],
    )
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for number in (1, 5):
        inputs = {
            "image": rng.normal(size=(number, 3, 128, 128)).astype(np.float32),
            "goal": rng.uniform(-1, 9, (number, 3)).astype(np.float32),
            "proprioception": rng.uniform(-1, 1, (number, 2)).astype(np.float32),
        }
        found = session.run(["embedding", "action"], inputs)
        with torch.no_grad():
            wanted = model(*(torch.from_numpy(value) for value in inputs.values()))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
