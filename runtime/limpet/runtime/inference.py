"""Requests for one inference: from `Infer` to `Result`, `Stale`, `Rejected` or `Failed`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from limpet.contracts import messages
from limpet.contracts.clock import Clock
from limpet.contracts.errors import ImplausibleError, RejectedError, TensorError
from limpet.contracts.tensors import Tensors
from limpet.runtime.backlog import Together
from limpet.runtime.metrics import Metrics
from limpet.runtime.models import ServedModel
from limpet.runtime.replies import Refusals, Respond
from limpet.runtime.scheduler import ModelWorker
from limpet.runtime.served_images import Origin

FUTURE_NS = 250_000_000
"""How far ahead of the server's clock a capture time may lie before it must be a mistake."""

WAY_PART = 20
"""A twentieth of a request's maximum age is left for the way of its answer, where others wait."""

Compute = Callable[[Tensors], tuple[Tensors, str]]
"""Outputs of a request's inputs, and why a model that finds grasps found none."""


class InferenceRequests:
    """Queues inferences, drops what is too old, answers each.

    Args:
        models: Served models by name.
        workers: Theirs, by the same names.
        clock: The server's.
        metrics: Counts what is dropped, and measures.
        refusals: Says what is not answered by a result.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        workers: Mapping[str, ModelWorker],
        clock: Clock,
        metrics: Metrics,
        refusals: Refusals,
    ) -> None:
        self._models, self._workers, self._clock = models, workers, clock
        self._metrics, self._refusals = metrics, refusals

    def infer(
        self,
        request: messages.Infer,
        inputs: Tensors,
        respond: Respond,
        arrived_ns: int,
        identity: bytes,
    ) -> None:
        """Accepts a request, in the I/O thread; raises `RejectedError` where it cannot."""
        model = self._models.get(request.model)
        if model is None:
            raise RejectedError(
                "unknown_model",
                f"no model {request.model!r}",
                f"served: {', '.join(self._models)}",
            )
        try:
            batch = model.check_request(inputs)
        except TensorError as error:
            raise RejectedError("bad_input", error.message, error.hint) from error
        if request.channel_order is not UNSET and model.images is None:
            raise RejectedError(
                "bad_input",
                f"channel_order {request.channel_order!r} and model {model.name!r}, which takes "
                "no image",
                "leave it out",
            )
        if request.capture_time_ns is None:
            request.capture_time_ns = self._clock.now_ns()
        elif request.capture_time_ns > self._clock.now_ns() + FUTURE_NS:
            raise RejectedError(
                "bad_input", "captured in the future", "measure the clock offset with Ping"
            )
        valid_ns = model.valid_ns
        if valid_ns is not None and (request.max_age_ns is None or request.max_age_ns > valid_ns):
            request.max_age_ns = valid_ns
        call = _Call(request, inputs, respond, arrived_ns, batch)
        run = functools.partial(self._run, model, self._compute(model, request, identity), call)
        cost_ns = model.cost_of(batch)
        if cost_ns is None or not self._workers[model.name].run_inline(run, cost_ns):
            self._queue(model, run, call, identity)

    def _queue(
        self, model: ServedModel, run: Callable[[], None], call: _Call, identity: bytes
    ) -> None:
        """Leaves a call to the model's worker; raises `RejectedError` where it is overloaded."""
        request = call.request
        replaced = None
        if request.replaces:
            stale = messages.Stale(id=request.id, stage="replaced")
            replaced = functools.partial(self._drop_stale, stale, call.respond)
        accepted = self._workers[model.name].submit(
            run,
            priority=request.priority,
            client=identity,
            due_ns=self._due_ns(request, call.arrived_ns),
            key=(identity, request.replaces) if request.replaces else None,
            on_replaced=replaced,
            on_evicted=functools.partial(self._evict, model, request.id, call.respond),
            on_late=functools.partial(self._drop_late, request, call.respond),
            together=None
            if model.together == 1 or call.batch > 1
            else functools.partial(self._together, model, call),
        )
        if not accepted:
            raise _overloaded(model)

    def _due_ns(self, request: messages.Infer, arrived_ns: int) -> int | None:
        """When its inference must end for the answer to be in time, on the monotonic clock."""
        if request.max_age_ns is None or request.capture_time_ns is None:
            return None
        longest_ns = request.max_age_ns - request.max_age_ns // WAY_PART
        return request.capture_time_ns + longest_ns - self._clock.now_ns() + arrived_ns

    @staticmethod
    def _compute(model: ServedModel, request: messages.Infer, identity: bytes) -> Compute | None:
        """What computes the outputs of a request; None of a model that takes its graph's tensors,
        and always finds something.
        """
        if model.grasps is not None:
            return model.grasps.infer
        if model.images is None:
            return None
        images = model.images
        assert request.capture_time_ns is not None
        origin = Origin(
            client=identity,
            camera=request.replaces,
            captured_ns=request.capture_time_ns,
            channel_order="rgb" if request.channel_order is UNSET else request.channel_order,
        )
        return lambda inputs: (images.infer(inputs, origin), "")

    def _run(self, model: ServedModel, compute: Compute | None, call: _Call) -> None:
        request = call.request
        try:
            started_ns = time.monotonic_ns()
            if request.max_age_ns is not None and (stale := self._stale(request, "queue")):
                return self._drop_stale(stale, call.respond)
            nothing = ""
            if compute is None:
                outputs = model.infer(call.inputs, call.batch)
            else:
                outputs, nothing = compute(call.inputs)
            finished_ns = time.monotonic_ns()
            self._answer(model, call, outputs, started_ns, finished_ns, nothing)
            if call.batch == 1:
                model.cost.observe(finished_ns - started_ns)
        except TensorError as error:
            cause = error.cause if isinstance(error, ImplausibleError) else ""
            refused = RejectedError("bad_input", error.message, error.hint, cause)
            self._refusals.reject(call.respond, request.id, refused)
        except BaseException as error:  # noqa: BLE001 (answered and logged; a worker must not end)
            self._refusals.fail(call.respond, request.id, error)

    def _answer(
        self,
        model: ServedModel,
        call: _Call,
        outputs: Tensors,
        started_ns: int,
        finished_ns: int,
        nothing: str = "",
    ) -> None:
        request = call.request
        if request.max_age_ns is not None and (stale := self._stale(request, "reply")) is not None:
            return self._drop_stale(stale, call.respond)
        call.respond(
            messages.Result(
                id=request.id,
                model=model.name,
                space_id=model.manifest.space_id,
                engine=model.engine.name,
                queue_ns=started_ns - call.arrived_ns,
                inference_ns=finished_ns - started_ns,
                total_ns=finished_ns - call.arrived_ns,
                valid_until_ns=_valid_until_ns(model, request),
                nothing=nothing or UNSET,
            ),
            outputs,
        )
        # While ZeroMQ's thread sends; the turn is still ours, so that no status is asked meanwhile.
        self._metrics.record(model.name, finished_ns - call.arrived_ns)
        if nothing:
            self._metrics.count(f"nothing.{nothing}")

    # Several in one call --------------------------------------------------------------------------

    def _together(self, model: ServedModel, call: _Call) -> Together:
        """How a request of one is run with others: those whose other sizes are the same."""
        sizes = tuple(call.inputs[spec.name].shape[1:] for spec in model.inputs)
        run = functools.partial(self._run_together, model)
        return Together(sizes, call, model.together, run)

    def _run_together(self, model: ServedModel, calls: Sequence[_Call]) -> None:
        started_ns = time.monotonic_ns()
        live = []
        for call in calls:
            if (stale := self._stale(call.request, "queue")) is not None:
                self._drop_stale(stale, call.respond)
            else:
                live.append(call)
        outputs = self._compute_together(model, live) if len(live) > 1 else None
        if outputs is None:
            for call in live:
                self._run(model, None, call)
            return
        finished_ns = time.monotonic_ns()
        self._metrics.count("together", len(live))
        for place, call in enumerate(live):
            own = {name: array[place : place + 1] for name, array in outputs.items()}
            try:
                self._answer(model, call, own, started_ns, finished_ns)
            except BaseException as error:  # noqa: BLE001 (as in `_run`)
                self._refusals.fail(call.respond, call.request.id, error)

    @staticmethod
    def _compute_together(model: ServedModel, calls: Sequence[_Call]) -> Tensors | None:
        """Outputs of several requests, in order; None where each has to be run by itself."""
        try:
            outputs = model.infer(
                {
                    spec.name: np.concatenate([call.inputs[spec.name] for call in calls])
                    for spec in model.inputs
                },
                len(calls),
            )
            fits = all(len(array) == len(calls) for array in outputs.values())
        except BaseException:  # noqa: BLE001 (one of them may be at fault: it is answered alone)
            return None
        return outputs if fits else None

    def _stale(self, request: messages.Infer, stage: Any) -> messages.Stale | None:
        if request.max_age_ns is None or request.capture_time_ns is None:
            return None
        age_ns = max(0, self._clock.now_ns() - request.capture_time_ns)
        if age_ns <= request.max_age_ns:
            return None
        return messages.Stale(
            id=request.id, stage=stage, age_ns=age_ns, max_age_ns=request.max_age_ns
        )

    def _drop_stale(self, stale: messages.Stale, respond: Respond) -> None:
        self._metrics.count(f"dropped.stale_{stale.stage}")
        respond(stale, None)

    def _drop_late(self, request: messages.Infer, respond: Respond, ahead_ns: int) -> None:
        """It would be too old when its answer comes: says how old."""
        assert request.max_age_ns is not None
        assert request.capture_time_ns is not None
        age_ns = max(0, self._clock.now_ns() - request.capture_time_ns)
        stale = messages.Stale(
            id=request.id,
            stage="queue",
            age_ns=age_ns + ahead_ns + request.max_age_ns // WAY_PART,
            max_age_ns=request.max_age_ns,
        )
        self._drop_stale(stale, respond)

    def _evict(self, model: ServedModel, request_id: int, respond: Respond) -> None:
        self._refusals.reject(respond, request_id, _overloaded(model))


class _Call(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A request of `batch` items that waits or runs."""

    request: messages.Infer
    inputs: Tensors
    respond: Respond
    arrived_ns: int
    batch: int


def _overloaded(model: ServedModel) -> RejectedError:
    return RejectedError(
        "overloaded",
        f"more requests wait for model {model.name!r} than it can answer in time or than "
        f"{model.config.queue}",
        "send less often, or ask for the newest only with `replaces`",
    )


def _valid_until_ns(model: ServedModel, request: messages.Infer) -> int | UnsetType:
    if model.valid_ns is None or request.capture_time_ns is None:
        return UNSET
    return request.capture_time_ns + model.valid_ns
