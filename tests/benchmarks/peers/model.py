"""The model that every peer serves: the same file under the same settings of ONNX Runtime.

Runs in each peer's own environment, so it imports nothing of limpet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.float32]


def open_model(path: str) -> Callable[[Array], Array]:
    """`x` (1, n) to `y` (1, n): one thread, no spinning, as limpet's engine on the CPU."""
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(x: Array) -> Array:
        (y,) = session.run(["y"], {"x": x})
        return np.asarray(y)

    return run
