"""What every engine does."""

from __future__ import annotations

from typing import Protocol

from limpet.contracts.tensors import Tensors


class Engine(Protocol):
    """A loaded model.

    Attributes:
        name: Engine and device, as heartbeats and replies announce it (`onnxruntime-cpu`).
    """

    name: str

    def run(self, inputs: Tensors) -> Tensors:
        """Runs one batch; from several threads at a time.

        Args:
            inputs: C-order arrays that fit the manifest's inputs; they are not kept.

        Returns:
            The manifest's outputs by name. The caller owns them.

        Raises:
            EngineError: The device or the library failed.
        """
        ...
