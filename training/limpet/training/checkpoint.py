"""A checkpoint: everything that a training step changes, in one file.

model/NAME            parameters and buffers
optimizer/NAME/SLOT   what the optimiser keeps of a parameter
scaler/KEY            the gradient scaler, in fp16
recent/NAME           figures of the last steps, which the log averages
step                  steps that are done
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from limpet.contracts.errors import DataError
from limpet.contracts.whole_files import write_whole
from limpet.training.distributed import any_rank, from_leader
from limpet.training.ranks import leads

SCALER_KEYS = ("scale", "_growth_tracker")
"""What changes in a gradient scaler; the rest of its state is settings."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Saves and restores a training in place, on all ranks alike.

    Attributes:
        path: The file; only rank 0 reads and writes it.
        model: What is trained.
        optimizer: Its optimiser.
        scaler: Its gradient scaler, perhaps not enabled.
        recent: Figures of the last steps, by name.
    """

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    recent: deque[Mapping[str, float]]

    def save(self, step: int) -> None:
        """Writes the file; no rank goes on before it is there.

        Args:
            step: Steps that are done.
        """
        if leads():
            write_whole(self.path, save(self._tensors(step)))
        any_rank(False)

    def restore(self) -> int:
        """Puts rank 0's state into all ranks: the file's, or without a file its present one.

        Returns:
            Steps that are done.

        Raises:
            DataError: The file is damaged or of another model.
        """
        content = from_leader(self._content() if leads() else b"")
        try:
            return self._set(load(content))
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise self._refusal(error) from error

    def _content(self) -> bytes:
        if not self.path.exists():
            return save(self._tensors(0))
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path} is no checkpoint of this model: {error}", "begin anew with --force"
        )

    def _tensors(self, step: int) -> dict[str, Tensor]:
        tensors = {f"model/{name}": value for name, value in self._weights().items()}
        for name, parameter in self.model.named_parameters():
            for slot, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{name}/{slot}"] = value
        if self.scaler.is_enabled():
            state = self.scaler.state_dict()
            for key in SCALER_KEYS:
                tensors[f"scaler/{key}"] = torch.tensor(state[key], dtype=torch.float64)
        for name in self.recent[-1] if self.recent else ():
            values = [figures[name] for figures in self.recent]
            tensors[f"recent/{name}"] = torch.tensor(values, dtype=torch.float64)
        tensors["step"] = torch.tensor(step)
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def _set(self, tensors: dict[str, Tensor]) -> int:
        step = int(tensors.pop("step"))
        with torch.no_grad():
            for name, value in self._weights().items():
                saved = tensors.pop(f"model/{name}")
                if saved.shape != value.shape:  # `copy_` would stretch a row over a matrix
                    raise ValueError(f"{name} is {[*saved.shape]}, wanted {[*value.shape]}")
                value.copy_(saved)
        if self.scaler.is_enabled():
            state = {key: tensors.pop(f"scaler/{key}").item() for key in SCALER_KEYS}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **state})
        parameters = dict(self.model.named_parameters())
        recent: dict[str, list[float]] = {}
        for key, value in tensors.items():
            group, _, rest = key.partition("/")
            if group == "recent":
                recent[rest] = value.tolist()
                continue
            name, _, slot = rest.rpartition("/")
            parameter = parameters[name]
            where = "cpu" if slot == "step" else parameter.device
            self.optimizer.state[parameter][slot] = value.to(where)
        self.recent.extend(
            dict(zip(recent, row, strict=True)) for row in zip(*recent.values(), strict=True)
        )
        return step

    def _weights(self) -> dict[str, Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
