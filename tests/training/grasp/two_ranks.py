"""What each of two processes does under torchrun; `test_train` starts it and judges it.

two_ranks.py FOLDER    each rank writes FOLDER/rank{0,1}.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from limpet.training.distributed import average, average_gradients, process_group
from limpet.training.grasp.encoder import GraspEncoder
from limpet.training.grasp.objective import Objective
from limpet.training.ranks import rank
from tests.training.grasp.tiny import SMALL, open_tiny, write_tiny


def one_step(root: Path) -> dict[str, Tensor]:
    """Loss, its parts and gradients of one step on a data set."""
    encoder = GraspEncoder(SMALL)
    figures = Objective(*open_tiny(root), SMALL).loss(encoder, np.random.default_rng(1))
    figures["loss"].backward()  # type: ignore[no-untyped-call]
    average_gradients(encoder.parameters())
    gradients = {name: weight.grad for name, weight in encoder.named_parameters()}
    return {
        **{name: torch.tensor(value) for name, value in average(figures).items()},
        **{name: gradient for name, gradient in gradients.items() if gradient is not None},
    }


def main(folder: Path) -> None:
    """One step on data of this rank's own, which is the same."""
    torch.set_num_threads(1)
    with process_group():
        step = one_step(write_tiny(folder / f"data-{rank()}" / "tiny"))
        save_file(step, folder / f"rank{rank()}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
