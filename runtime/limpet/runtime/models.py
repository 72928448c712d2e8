"""A model as the server runs it: bundle, engine, preprocessing, and what one run costs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from limpet.contracts.bundle import Bundle, read_bundle
from limpet.contracts.clouds import CloudPreprocessing
from limpet.contracts.errors import ConfigError, EngineError, TensorError
from limpet.contracts.golden import check_golden
from limpet.contracts.grasp_model import GraspModel
from limpet.contracts.image_model import ImageModel
from limpet.contracts.images import ImagePreprocessing
from limpet.contracts.manifest import Manifest, SignalPreprocessing
from limpet.contracts.messages import MemoryInfo, ModelInfo
from limpet.contracts.scoring import KeptState, SignalScorer, StateKeeper, StreamingModel
from limpet.contracts.signal_preprocessor import SignalPreprocessor, prepare_stretches
from limpet.contracts.tensors import Tensors, TensorSpec, check_tensors
from limpet.runtime.admission import Load, find_overloads, usable_cores
from limpet.runtime.config import ModelConfig
from limpet.runtime.engines import open_engine
from limpet.runtime.run_cost import QUANTILE, RunCost, best_batch, measure_runs, percentile
from limpet.runtime.served_grasps import ServedGrasps
from limpet.runtime.served_images import ServedImages
from limpet.runtime.turn import OutsideTurn

log = logging.getLogger(__name__)

MIXED_RTOL = 1e-3
"""Another batch may choose another kernel, which rounds otherwise; more is another model."""
BRIEF_NS = 50_000
"""A model whose runs are quicker keeps the turn: to hand it over would not pay."""
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
        self._what = f"model {self.name!r}"
        self.engine = open_engine(self.bundle, config.engine, config.threads)
        self.images: ServedImages | None = None
        """Takes the requests of a model that takes images; None for others."""
        self.inputs, self.outputs = _request_tensors(self.manifest)
        """The tensors that an `Infer` carries, and those that its `Result` does."""
        self.grasps: ServedGrasps | None = None
        """Takes the requests of a model that finds grasps; None for others."""
        if isinstance(self.manifest.preprocessing, CloudPreprocessing):
            finder = GraspModel(self.manifest, lambda inputs: self.engine.run(inputs))
            self.grasps = ServedGrasps(finder)
            self.inputs, self.outputs = finder.inputs, finder.outputs
        if isinstance(self.manifest.preprocessing, ImagePreprocessing):
            model = ImageModel(self.manifest, lambda inputs: self.engine.run(inputs))
            self.images = ServedImages(model)
            self.inputs, self.outputs = model.inputs, model.outputs
        self.valid_ns = None if self.images is None else self.images.valid_ns
        """How long after its input was captured an action may be followed; None without any."""
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
        took = self._measure(golden.inputs)
        self.measured_p99_ns = percentile(took, 0.99)
        """Of one run of the graph at the smallest batch, when the model was loaded."""
        self.cost = RunCost(percentile(took, QUANTILE))
        """The same, p95, followed since for requests of one."""
        self.together = self._measure_batches(golden.inputs) if config.together else 1
        """Requests of one that are run in one call, at most."""

    def _measure(self, inputs: Tensors) -> list[int]:
        """Nanoseconds of runs of the graph at the smallest batch, ascending."""
        single = {
            spec.name: inputs[spec.name][:1] if spec.shape[:1] == ["batch"] else inputs[spec.name]
            for spec in self.manifest.inputs
        }
        return measure_runs(lambda: self.engine.run(single))

    def _measure_batches(self, inputs: Tensors) -> int:
        """How many requests pay in one call; 1 where each must be run by itself."""
        tensors = [*self.manifest.inputs, *self.manifest.outputs]
        if self.manifest.preprocessing is not None or any(
            spec.shape[:1] != ["batch"] for spec in tensors
        ):
            return 1

        def run(batch: int) -> None:
            self.engine.run({name: np.repeat(x[:1], batch, axis=0) for name, x in inputs.items()})

        deadline_ms = self.config.deadline_ms
        deadline_ns = math.inf if deadline_ms is None else deadline_ms * 1e6
        together = min(best_batch(run, deadline_ns), self.config.max_batch)
        if together > 1 and self._mixes(inputs):
            log.warning(
                "model %s: what it computes for one item of a batch depends on the others, so that "
                "each request is run by itself", self.name,
            )  # fmt: skip
            return 1
        return together

    def _mixes(self, inputs: Tensors) -> bool:
        """Whether an item's outputs depend on what else is in its batch: clients must not mix."""
        one = {name: x[:1] for name, x in inputs.items()}
        alone = self.engine.run(one)
        other = {name: (-3 * x + 1).astype(x.dtype) for name, x in one.items()}
        try:
            beside = self.engine.run(
                {name: np.concatenate([x, other[name]]) for name, x in one.items()}
            )
        except EngineError:  # an index out of range, say: other values may not be made up
            beside = self.engine.run({name: np.concatenate([x, x]) for name, x in one.items()})
        return any(
            not np.allclose(beside[name][:1], x, rtol=MIXED_RTOL, atol=MIXED_RTOL * np.abs(x).max())
            for name, x in alone.items()
        )

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
        """Checks the tensors of an `Infer` before it is queued; those with an image or with depth
        when it is run.

        Returns:
            Size of the axis `batch`, 1 where the model has none.

        Raises:
            TensorError: They are not what the model takes.
        """
        if self.images is not None:
            return 1
        if self.grasps is not None:
            self.grasps.check(inputs)
            return 1
        batch = check_tensors(self.inputs, inputs, self._what).get("batch", 1)
        if batch > self.config.max_batch:
            raise TensorError(
                f"model {self.name!r}: batch of {batch}, at most {self.config.max_batch}"
            )
        return batch

    def cost_of(self, batch: int) -> float | None:
        """p95 of a request in nanoseconds; None where its size decides, as an image's does."""
        sized = self.images is not None or self.grasps is not None
        return None if sized else self.cost.p95_ns * batch

    def infer(self, inputs: Tensors, batch: int = 1) -> Tensors:
        """Preprocesses and runs one request; `images` and `grasps` do that for models of theirs.

        Args:
            inputs: As `check_request` found them good.
            batch: As it returned.

        Raises:
            TensorError: A value that the preprocessing refuses.
            EngineError: The engine failed.
        """
        signal = self.manifest.preprocessing
        if not isinstance(signal, SignalPreprocessing):
            if batch == 1 and self.cost.p95_ns < BRIEF_NS:
                return self.engine.run(inputs)
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
        keeper = _Outside(self.engine) if isinstance(self.engine, StateKeeper) else None
        return SignalScorer(self.manifest, self._run, keeper=keeper)

    def _run(self, inputs: Tensors) -> Tensors:
        with OutsideTurn():
            return self.engine.run(inputs)


class _Outside:
    """An engine that keeps streams' states, called outside of the turn."""

    def __init__(self, engine: StateKeeper) -> None:
        self._engine = engine

    def new_state(self) -> KeptState:
        return self._engine.new_state()

    def run_kept(self, inputs: Tensors, states: Sequence[KeptState]) -> Tensors:
        with OutsideTurn():
            return self._engine.run_kept(inputs, states)


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


def check_load(
    models: Mapping[str, ServedModel], when_overloaded: Literal["refuse", "warn"]
) -> None:
    """Whether this machine can serve what the models' configurations declare.

    Raises:
        ConfigError: It cannot, and is to refuse.
    """
    loads = [
        Load(
            name=name,
            rate_hz=model.config.rate_hz,
            deadline_ms=model.config.deadline_ms,
            p99_ms=model.measured_p99_ns / 1e6,
            threads=model.config.threads,
        )
        for name, model in models.items()
        if model.config.rate_hz is not None
    ]
    for load in loads:
        log.info(
            "model %s: one run takes %.3g ms (p99), %g requests/s declared",
            load.name, load.p99_ms, load.rate_hz,
        )  # fmt: skip
    if overloads := find_overloads(loads, usable_cores()):
        message = "this machine cannot serve what is declared: " + "; ".join(overloads)
        if when_overloaded == "refuse":
            raise ConfigError(
                message,
                "lower rate_hz, take a smaller model or a lower precision, or set "
                'when_overloaded = "warn"',
            )
        log.warning("%s", message)
