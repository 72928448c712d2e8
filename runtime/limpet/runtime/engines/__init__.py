"""Inference engines behind one protocol; `open_engine` chooses and checks.

protocol      what every engine does
ort           ONNX Runtime on the CPU
trt           TensorRT and TensorRT for RTX
passage       one execution context of a plan, recorded once its sizes repeat
kernel_cache  what it compiled while it ran, for the next start
plan_tensors  its inputs and outputs beside the manifest's
pinned        a tensor in the host's memory and the GPU's
device        what is asked of a GPU
nvidia        an NVIDIA GPU that does it
"""

from __future__ import annotations

import logging

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError, ImpossibleHereError, LimpetError
from limpet.runtime.engines.ort import OnnxRuntimeEngine
from limpet.runtime.engines.protocol import Engine
from limpet.runtime.engines.trt import open_tensorrt
from limpet.runtime.plans.libraries import Compiler

ENGINES = ("auto", "onnxruntime", "tensorrt", "tensorrt-rtx")
"""Names that a configuration or `--engine` may give."""
_ON_GPU: tuple[Compiler, ...] = ("tensorrt", "tensorrt-rtx")

__all__ = ["ENGINES", "Engine", "open_engine"]

log = logging.getLogger(__name__)


def open_engine(bundle: Bundle, name: str = "auto", threads: int = 1) -> Engine:
    """Loads a bundle's model into an engine.

    Args:
        bundle: A bundle as `read_bundle` returned it.
        name: One of `ENGINES`. `auto` takes the fastest that this machine has, and logs what it
            took where there is a GPU; any other is taken as said and never replaced silently.
        threads: CPU threads that one inference may use.

    Raises:
        EngineError: The engine is unknown or cannot load the model, or there is no plan for it.
        ImpossibleHereError: The engine needs a GPU that this machine does not have.
        MissingExtraError: The engine's library is not installed.
        BundleError: The graph's inputs or outputs are not those that the manifest states.
    """
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}", f"known: {', '.join(ENGINES)}")
    if name == "auto":
        return _fastest(bundle, threads)
    for compiler in _ON_GPU:
        if name == compiler:
            return open_tensorrt(bundle, compiler)
    return OnnxRuntimeEngine(bundle, threads)


def _fastest(bundle: Bundle, threads: int) -> Engine:
    """A plan on the GPU, where there is one with its libraries; else ONNX Runtime."""
    reasons = []
    for compiler in _ON_GPU:
        try:
            engine: Engine = open_tensorrt(bundle, compiler)
        except ImpossibleHereError:
            continue  # nothing that anybody could mend
        except LimpetError as error:
            reasons.append(f"{compiler}: {error.message} ({error.hint})")
        else:
            log.info("%s: engine %s", bundle.manifest.name, engine.name)
            return engine
    engine = OnnxRuntimeEngine(bundle, threads)
    if reasons:
        log.warning(
            "%s: engine %s, though there is a GPU: %s",
            bundle.manifest.name,
            engine.name,
            "; ".join(reasons),
        )
    return engine
