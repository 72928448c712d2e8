"""A model as the server runs it: bundle, engine, preprocessing, and what one run costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.errors import EngineError, TensorError
from limpet.contracts.golden import check_golden
from limpet.contracts.image_model import ImageModel
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import Manifest, SignalPreprocessing
from limpet.contracts.messages import MemoryInfo, ModelInfo
from limpet.contracts.scoring import SignalScorer, StreamingModel
from limpet.contracts.signal_preprocessor import SignalPreprocessor, prepare_stretches
from limpet.contracts.tensors import Tensors, TensorSpec, check_tensors
from limpet.runtime.config import ModelConfig
from limpet.runtime.engines import open_engine
from limpet.runtime.served_images import ServedImages
from limpet.runtime.turn import OutsideTurn

_COST_RUNS = 20
ROWS = "rows"
"""Name of the tensor that a request to a model which scores streams carries."""


class ServedModel:
    """A model, loaded, proven on its golden data and measured.

    Args:
        config: Its table of the configuration.

    Raises:
        BundleError: The bundle is not sound.
        EngineError: The engine cannot load it, or computes something else than training did.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.bundle: Bundle = read_bundle(config.bundle)
        self.manifest = self.bundle.manifest
        self.name = config.name or self.manifest.name
        self.engine = open_engine(self.bundle, config.engine, config.threads)
        self.images: ServedImages | None = None
        """Takes the requests of a model that takes images; None for others."""
        self.inputs, self.outputs = _request_tensors(self.manifest)
        """The tensors that an `Infer` carries, and those that its `Result` does."""
        if isinstance(self.manifest.preprocessing, ImagePreprocessing):
            model = ImageModel(self.manifest, lambda inputs: self.engine.run(inputs))
            self.images = ServedImages(model)
            self.inputs, self.outputs = model.inputs, model.outputs
        golden = self.bundle.golden()
        failed = [
            f"{check.name} {check.measured:.3g}, bound {check.bound:.3g}"
            for check in check_golden(golden, self.manifest, self.engine.run).checks
            if not check.passed
        ]
        if failed:
            raise EngineError(
                f"{self.engine.name} computes other outputs for {self.bundle.path} than training "
                f"did: {'; '.join(failed)}",
                f"look at all checks with: limpet verify {self.bundle.path}",
            )
        self.cost_ns = self._measure_cost(golden.inputs)

    def _measure_cost(self, inputs: Tensors) -> int:
        """Median nanoseconds of one run at the smallest batch."""
        single = {
            spec.name: inputs[spec.name][:1] if spec.shape[:1] == ["batch"] else inputs[spec.name]
            for spec in self.manifest.inputs
        }
        times = []
        for _ in range(_COST_RUNS):
            start = time.perf_counter_ns()
            self.engine.run(single)
            times.append(time.perf_counter_ns() - start)
        return sorted(times)[_COST_RUNS // 2]

    def info(self) -> ModelInfo:
        """What a client is told."""
        manifest = self.manifest
        return ModelInfo(
            name=self.name,
            kind=manifest.kind,
            space_id=manifest.space_id,
            engine=self.engine.name,
            inputs=self.inputs,
            outputs=self.outputs,
            channels=_channels(manifest),
            threshold=manifest.calibration.threshold if manifest.calibration else None,
            memory=_memory(self.images),
        )

    def check_request(self, inputs: Tensors) -> int:
        """Checks the tensors of an `Infer` before it is queued; those with an image when it is run.

        Returns:
            Size of the axis `batch`, 1 where the model has none.

        Raises:
            TensorError: They are not what the model takes.
        """
        if self.images is not None:
            return 1
        batch = check_tensors(self.inputs, inputs, f"model {self.name!r}").get("batch", 1)
        if batch > self.config.max_batch:
            raise TensorError(
                f"model {self.name!r}: batch of {batch}, at most {self.config.max_batch}"
            )
        return batch

    @property
    def valid_ns(self) -> int | None:
        """How long after its input was captured an action may be followed; None without any."""
        return None if self.images is None else self.images.valid_ns

    def cost_of(self, batch: int) -> int | None:
        """Estimated nanoseconds of a request; None where its size decides, as an image's does."""
        return self.cost_ns * batch if self.images is None else None

    def infer(self, inputs: Tensors) -> Tensors:
        """Preprocesses and runs one request; `images` does that for a model that takes some.

        Raises:
            TensorError: A value that the preprocessing refuses.
            EngineError: The engine failed.
        """
        signal = self.manifest.preprocessing
        if not isinstance(signal, SignalPreprocessing):
            return self._run(inputs)
        frames = prepare_stretches(signal.steps, inputs[ROWS])
        embedding, score = StreamingModel(self.manifest, self._run).replay(
            frames, np.ones_like(frames)
        )
        return {spec.name: x for spec, x in zip(self.outputs, (embedding, score), strict=True)}

    def scorer(self) -> SignalScorer:
        """A scorer for one stream.

        Raises:
            BundleError: The model scores no streams.
        """
        return SignalScorer(self.manifest, self._run)

    def _run(self, inputs: Tensors) -> Tensors:
        with OutsideTurn():
            return self.engine.run(inputs)


def _memory(images: ServedImages | None) -> MemoryInfo | UnsetType:
    how = None if images is None else images.model.memory
    if how is None:
        return UNSET
    return MemoryInfo(
        input=how.input, output=how.output, step_s=how.step_s, longest_s=how.longest_s
    )


def _channels(manifest: Manifest) -> list[str]:
    signal = manifest.preprocessing
    return signal.channels if isinstance(signal, SignalPreprocessing) else []


def _request_tensors(manifest: Manifest) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The graph's inputs and outputs. Of a model that scores streams: the rows up to a stream's
    first score, and what the model says of the last of them.
    """
    signal = manifest.preprocessing
    if not isinstance(signal, SignalPreprocessing):
        return manifest.inputs, manifest.outputs
    channels = len(signal.channels)
    count = SignalPreprocessor(signal.steps, channels).warm_up_rows + 1
    rows = TensorSpec(name=ROWS, dtype="float32", shape=["batch", count, channels])
    embedding, score, _ = manifest.outputs
    return [rows], [
        msgspec.structs.replace(spec, shape=["batch", *spec.shape[2:]])
        for spec in (embedding, score)
    ]


def load_models(configs: Sequence[ModelConfig]) -> dict[str, ServedModel]:
    """Loads every model of a configuration, by name.

    Raises:
        BundleError, EngineError: As `ServedModel`; or two models have one name.
    """
    models: dict[str, ServedModel] = {}
    for config in configs:
        model = ServedModel(config)
        if model.name in models:
            raise EngineError(
                f"two models are named {model.name!r}", "give one of them a `name` of its own"
            )
        models[model.name] = model
    return models
