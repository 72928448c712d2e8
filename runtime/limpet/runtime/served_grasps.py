"""Requests to a model that finds grasps: from depth to gripper poses, or why there are none."""

from __future__ import annotations

import numpy as np

from limpet.contracts.clouds import NoGrasp
from limpet.contracts.errors import EngineError, TensorError
from limpet.contracts.grasp_model import GraspModel, check_names
from limpet.contracts.tensors import Tensors
from limpet.runtime.turn import OutsideTurn


class ServedGrasps:
    """A grasp model that refuses what cannot be so. Belongs to the model's worker.

    Args:
        model: Preprocessing, graph, decoding.
    """

    def __init__(self, model: GraspModel) -> None:
        self.model = model

    def check(self, request: Tensors) -> None:
        """Checks before a request is queued what takes no time: which tensors it has.

        Raises:
            TensorError: They make no views.
        """
        check_names(request)
        empty = [name for name, array in request.items() if not array.size]
        if empty:
            raise TensorError(f"{', '.join(empty)}: nothing in it")

    def infer(self, request: Tensors) -> tuple[Tensors, NoGrasp]:
        """Computes the outputs of a request, and why there is no grasp where there is none.

        Raises:
            TensorError: The request does not fit the model.
            ImplausibleError: It fits and cannot be so.
            EngineError: The graph gave something that is no number.
        """
        with OutsideTurn():  # sampling and decoding take tens of milliseconds
            answer = self.model.infer(request)
        for name, array in answer.tensors.items():
            if not np.isfinite(array).all():
                raise EngineError(f"the model computed {name!r} with values that are no numbers")
        return answer.tensors, answer.nothing
