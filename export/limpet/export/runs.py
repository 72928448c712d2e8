"""RUNs of every kind, as export and evaluation see them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import safetensors  # noqa: F401 - whatever opens a RUN needs it: fail before the work begins
import torch
from torch import nn

from limpet.contracts.errors import DataError
from limpet.contracts.golden import Golden, Run
from limpet.contracts.manifest import Manifest, Precision
from limpet.contracts.tensors import Tensors
from limpet.training.run import RunFolder
from limpet.training.threads import one_thread


class ExportableRun(Protocol):
    """A finished RUN, opened."""

    @property
    def module(self) -> nn.Module:
        """What becomes the graph, in evaluation mode on the CPU."""
        ...

    def manifest(self, name: str, precision: Precision) -> Manifest:
        """The bundle's manifest; its inputs and outputs are the module's, in order."""
        ...

    def golden(self, manifest: Manifest) -> Golden:
        """What the bundle must compute."""
        ...


def open_any_run(path: Path) -> ExportableRun:
    """Opens a RUN by the kind that its record names.

    Raises:
        DataError: No finished RUN, damaged weights, or of a kind that is not exported.
    """
    kind = RunFolder(path).read_complete().kind
    if kind == "anomaly":
        from limpet.export.anomaly import open_anomaly_run

        return open_anomaly_run(path)
    if kind == "navigation":
        from limpet.export.navigation import open_navigation_run

        return open_navigation_run(path)
    if kind == "grasp":
        from limpet.export.grasp import open_grasp_run

        return open_grasp_run(path)
    raise DataError(f"{path} is a run of kind {kind!r}, wanted 'anomaly', 'navigation' or 'grasp'")


def torch_run(module: nn.Module, manifest: Manifest) -> Run:
    """Runs a module as an engine runs its graph, on one thread."""

    @torch.no_grad()
    def run(inputs: Tensors) -> Tensors:
        arguments = [torch.from_numpy(inputs[spec.name]) for spec in manifest.inputs]
        with one_thread():
            results = module(*arguments)
        if isinstance(results, torch.Tensor):
            results = (results,)
        return {
            spec.name: result.numpy()
            for spec, result in zip(manifest.outputs, results, strict=True)
        }

    return run
