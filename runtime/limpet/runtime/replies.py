"""How a request ends that was not answered by a result: refused or failed, counted and said."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import UNSET

from limpet.contracts import messages
from limpet.contracts.errors import LimpetError, RejectedError
from limpet.contracts.messages import Reply
from limpet.contracts.tensors import Tensors
from limpet.runtime.metrics import Metrics

log = logging.getLogger(__name__)

MAX_REASON_CHARS = 1000
"""Longest text in a refusal, which may quote what a node sent."""

Respond = Callable[[Reply, Tensors | None], None]
"""Sends the reply to one request; from any thread."""


class Refusals:
    """Says `Rejected` and `Failed`, and counts them. From any thread.

    Args:
        metrics: Counts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def reject(self, respond: Respond, request_id: int, error: RejectedError) -> None:
        """Nothing was done."""
        self._metrics.count(f"rejected.{error.code}")
        if error.cause:
            self._metrics.count(f"cause.{error.cause}")
        respond(
            messages.Rejected(
                id=request_id,
                code=error.code,
                reason=error.reason[:MAX_REASON_CHARS],
                hint=error.hint[:MAX_REASON_CHARS],
                cause=error.cause or UNSET,
            ),
            None,
        )

    def fail(self, respond: Respond, request_id: int, error: BaseException) -> None:
        """What was accepted failed: the node gets one line, the log the traceback."""
        log.error("request %d failed", request_id, exc_info=error)
        self._metrics.count("dropped.failed")
        reason = error.message if isinstance(error, LimpetError) else "internal error, see the log"
        respond(messages.Failed(id=request_id, reason=reason[:MAX_REASON_CHARS]), None)
