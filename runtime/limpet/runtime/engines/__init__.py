"""Inference engines behind one protocol; `open_engine` chooses and checks."""

from __future__ import annotations

from limpet.contracts.bundle import Bundle
from limpet.contracts.errors import EngineError
from limpet.runtime.engines.ort import OnnxRuntimeEngine
from limpet.runtime.engines.protocol import Engine

ENGINES = ("auto", "onnxruntime")
"""Names that a configuration or `--engine` may give."""

__all__ = ["ENGINES", "Engine", "open_engine"]


def open_engine(bundle: Bundle, name: str = "auto", threads: int = 1) -> Engine:
    """Loads a bundle's model into an engine.

    Args:
        bundle: A bundle as `read_bundle` returned it.
        name: One of `ENGINES`. `auto` takes the fastest that this machine has; any other is
            taken as said and never replaced silently.
        threads: CPU threads that one inference may use.

    Raises:
        EngineError: The engine is unknown or cannot load the model.
        BundleError: The graph's inputs or outputs are not those that the manifest states.
    """
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}", f"known: {', '.join(ENGINES)}")
    return OnnxRuntimeEngine(bundle, threads)
