"""Requests of sensor nodes: streams are opened, fed and closed in the order in which they ask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from limpet.contracts import messages
from limpet.contracts.errors import RejectedError
from limpet.contracts.messages import Reply
from limpet.contracts.tensors import Tensors
from limpet.runtime.replies import Refusals, Respond
from limpet.runtime.scheduler import Mailbox, ModelWorker
from limpet.runtime.stream import CREDITS, Stream
from limpet.runtime.stream_table import StreamTable


class StreamRequests:
    """Queues what streams send at their models' workers, and answers it.

    Args:
        streams: The open ones.
        workers: By name of their model.
        mailbox: Takes what a worker leaves for the I/O thread.
        refusals: Says what is not acknowledged.
    """

    def __init__(
        self,
        streams: StreamTable,
        workers: Mapping[str, ModelWorker],
        mailbox: Mailbox,
        refusals: Refusals,
    ) -> None:
        self._streams, self._workers = streams, workers
        self._mailbox, self._refusals = mailbox, refusals

    def open(
        self,
        request: messages.OpenStream,
        _: Tensors,
        respond: Respond,
        __: int,
        identity: bytes,
    ) -> None:
        """Accepts a request, in the I/O thread; raises `RejectedError` where it cannot."""
        stream = self._streams.open(request, identity)
        self._submit(stream, request.id, respond, lambda: (stream.open(request), None))

    def samples(
        self,
        request: messages.Samples,
        tensors: Tensors,
        respond: Respond,
        _: int,
        identity: bytes,
    ) -> None:
        """As `open`."""
        stream = self._streams.get(request.stream, request.session, identity)
        if set(tensors) != {"values"}:
            raise RejectedError("bad_input", f"wanted tensor 'values', found {sorted(tensors)}")
        if stream.pending >= CREDITS:
            raise RejectedError(
                "no_credit",
                f"{CREDITS} samples of stream {stream.name!r} wait",
                "wait for their scores",
            )
        values = tensors["values"]
        self._submit(stream, request.id, respond, lambda: stream.push(request, values))

    def close(
        self,
        request: messages.CloseStream,
        _: Tensors,
        respond: Respond,
        __: int,
        identity: bytes,
    ) -> None:
        """As `open`."""
        stream = self._streams.get(request.stream, request.session, identity)

        def close() -> tuple[Reply, None]:
            self._mailbox.put(functools.partial(self._streams.remove, stream))
            closed = messages.StreamClosed(
                id=request.id, stream=stream.name, next_sequence=stream.next_sequence
            )
            return closed, None

        self._submit(stream, request.id, respond, close)

    def _submit(
        self,
        stream: Stream,
        request_id: int,
        respond: Respond,
        work: Callable[[], tuple[Reply, Tensors | None]],
    ) -> None:
        """Queues a stream's message behind those that came before it."""

        def settle(reply: Reply, tensors: Tensors | None) -> None:
            # Before the reply: whoever reads it may use the credit at once.
            self._mailbox.put(functools.partial(_finish, stream))
            respond(reply, tensors)

        def job() -> None:
            try:
                settle(*work())
            except RejectedError as error:
                self._refusals.reject(settle, request_id, error)
            except BaseException as error:  # noqa: BLE001 (answered; a worker must not end)
                self._refusals.fail(settle, request_id, error)

        if not self._workers[stream.model.name].submit(job):
            stream.peer = b""  # else rows that follow would be taken, and these come late
            raise RejectedError(
                "overloaded",
                f"model {stream.model.name!r} has a full queue",
                "open the stream again and go on with these rows",
            )
        stream.pending += 1


def _finish(stream: Stream) -> None:
    stream.pending -= 1
