"""One fit of one method on one series, cached as a file. A module of its own, so that worker
processes can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from tests.benchmarks.anomaly import methods
from tests.benchmarks.anomaly.series import Segments, Series


@dataclass(frozen=True, eq=False)
class Cell:
    """One fit on one series."""

    method: str
    seed: int
    item: Series | Segments

    @property
    def file(self) -> str:
        """Name of its result in the cache."""
        text = f"{self.method} {self.seed} {self.item.dataset} {self.item.name}"
        return "".join(c if c.isalnum() else "_" for c in text) + ".npz"


def compute(cell: Cell, folder: Path) -> str:
    """Fits and scores one cell, and writes its result."""
    torch.set_num_threads(1)
    item = cell.item
    if isinstance(item, Series):
        train, parts, rate = item.values[: item.train_rows], [item.values], 1.0
    else:
        train, rate = item.train, item.rate_hz
        parts = [segment for group in item.test.values() for segment in group]
    if cell.method in methods.TRAINED:
        config = msgspec.structs.replace(methods.TRAINED[cell.method], seed=cell.seed)
        fit = methods.train_and_score(train, rate, parts, config)
    else:
        fit = methods.fit_baseline(cell.method, train, parts, cell.seed)
    arrays = {f"scores{name}": np.stack(found) for name, found in fit.scores.items()}
    facts = {"threshold": fit.threshold, "seconds": fit.seconds, "on_target": fit.on_target}
    partial = folder / f"{cell.file}.partial.npz"
    np.savez_compressed(partial, **arrays, **{k: np.array(v) for k, v in facts.items()})
    partial.rename(folder / cell.file)
    return cell.file
