"""Kernels that TensorRT for RTX compiles while a plan runs, kept beside the plan.

A plan of it holds no kernels: they are compiled for the GPU when they are first needed, and without
a file to keep them in, at every start again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from limpet.contracts.errors import EngineError
from limpet.contracts.whole_files import write_whole

log = logging.getLogger(__name__)


class KernelCache:
    """What a plan's contexts compiled, in a file.

    The library itself refuses a file of another GPU, driver or version of its own, or a damaged
    one: then kernels are compiled anew and the file is replaced.

    Args:
        engine: The library's engine; a CUDA context must be current, as the library compares it.
        file: Where they are kept; it need not be there.

    Raises:
        EngineError: The library takes no cache.
    """

    def __init__(self, engine: Any, file: Path) -> None:
        self._engine, self._file = engine, file
        # What the library made has to live as long as contexts that use it.
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self._kept = b""
        try:
            kept = file.read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s cannot be read, kernels are compiled anew: %s", file, error.strerror)
        else:
            if self._cache.deserialize(kept):
                self._kept = kept
            else:
                log.info("%s is not of this GPU, driver and TensorRT: compiled anew", file)
        if not self._config.set_runtime_cache(self._cache):
            raise EngineError("TensorRT for RTX takes no cache of kernels")

    def open_context(self) -> Any:
        """An execution context that uses and fills the cache; None where there is no memory."""
        return self._engine.create_execution_context(self._config)

    def save(self) -> None:
        """Writes the file where there is something new, in one step; without a place to write it
        only a warning, since all works without.
        """
        content = bytes(self._cache.serialize())
        if content == self._kept:
            return
        self._kept = content
        try:
            write_whole(self._file, content)
        except OSError as error:
            log.warning(
                "%s cannot be written, kernels are compiled again at the next start: %s",
                self._file, error.strerror,
            )  # fmt: skip
