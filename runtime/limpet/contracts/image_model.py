"""A model that takes a camera's images: what one request carries, and the way from it to outputs.

A request holds one image, uint8 (H, W, 3) of any size, and one row of each other input of the
graph; its result has one row of each output.

Dimension legend: h rows and w columns of the graph's image.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from limpet.contracts.errors import TensorError
from limpet.contracts.images import Float32, normalize, shrink
from limpet.contracts.manifest import ActionDecoding, Manifest, NavigationDecoding
from limpet.contracts.tensors import Tensors, TensorSpec, check_tensors


class ImageModel:
    """One request at a time through preprocessing, graph and decoding.

    Args:
        manifest: With `ImagePreprocessing`.
        run: Executes the graph.

    Attributes:
        inputs, outputs: The tensors of a request and of its result.
        action: How it drives, None for an encoder alone.
        memory: What its driver remembers, the one input that may be missing; None without any.

    Raises:
        BundleError: The model takes no images.
    """

    def __init__(self, manifest: Manifest, run: Callable[[Tensors], Tensors]) -> None:
        self.how = manifest.image()
        self._manifest, self._run = manifest, run
        decoding = manifest.decoding
        self.action: ActionDecoding | None = (
            decoding.action if isinstance(decoding, NavigationDecoding) else None
        )
        self.memory = None if self.action is None else self.action.memory
        image, *others = manifest.inputs
        self.inputs = [
            TensorSpec(name=image.name, dtype="uint8", shape=["rows", "columns", 3]),
            *map(_row_of, others),
        ]
        self.outputs = [*map(_row_of, manifest.outputs)]

    def infer(self, request: Tensors) -> Tensors:
        """Computes the outputs of one request.

        Raises:
            TensorError: A tensor is not what `inputs` says.
        """
        request = self.completed(request)
        return self.infer_small(self.shrink(request), request)

    def completed(self, request: Tensors) -> Tensors:
        """A request that lacks nothing, with an empty memory where it brings none.

        Raises:
            TensorError: Something is missing.
        """
        memory = None if self.memory is None else self.memory.input
        for spec in self.inputs:
            if spec.name not in request and spec.name != memory:
                raise TensorError(
                    f"model {self._manifest.name!r}: tensor {spec.name!r} is missing, "
                    f"found {sorted(request) or 'none'}",
                    f"wanted: {'; '.join(spec.describe() for spec in self.inputs)}",
                )
        if memory is None or memory in request:
            return request
        (size,) = map(int, self.inputs[-1].shape)
        return {**request, memory: np.zeros(size, np.float32)}

    def shrink(self, request: Tensors) -> Float32:
        """Checks a completed request; its image in the graph's size, values 0 to 255. (h, w, 3)

        Raises:
            TensorError: A tensor is not what `inputs` says.
        """
        image, *others = self.inputs
        small = shrink(request[image.name], self.how)
        rest = {name: array for name, array in request.items() if name != image.name}
        check_tensors(others, rest, f"model {self._manifest.name!r}")
        return small

    def infer_small(self, small_hw3: Float32, request: Tensors) -> Tensors:
        """Computes the outputs of a request whose image `shrink` made smaller."""
        image, *others = self._manifest.inputs
        batch = {image.name: normalize(small_hw3[None], self.how)}
        batch |= {spec.name: request[spec.name][None] for spec in others}
        outputs = {name: array[0] for name, array in self._run(batch).items()}
        if self.action is not None:
            most = np.array([self.action.largest_speed, self.action.largest_turn_rate], np.float32)
            outputs[self.action.name] = np.clip(outputs[self.action.name], -most, most)
        if self.memory is not None:
            outputs[self.memory.output] = np.clip(outputs[self.memory.output], -1.0, 1.0)
        return outputs


def _row_of(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, shape=spec.shape[1:])


def embed(manifest: Manifest, run: Callable[[Tensors], Tensors], images_n3hw: Float32) -> Float32:
    """Embeddings of prepared images, many at once.

    They do not depend on what a policy takes beside the image, which is zero here. (n, size)
    """
    image, *others = manifest.inputs
    decoding = manifest.decoding
    assert isinstance(decoding, NavigationDecoding)  # `read_bundle` saw to it
    batch = {image.name: images_n3hw}
    for spec in others:
        batch[spec.name] = np.zeros((len(images_n3hw), *map(int, spec.shape[1:])), np.float32)
    return np.asarray(run(batch)[decoding.embedding], np.float32)
