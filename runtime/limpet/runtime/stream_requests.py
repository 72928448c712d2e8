"""Requests of sensor nodes: streams are opened, fed and closed in the order in which they ask."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from limpet.contracts.errors import RejectedError
from limpet.contracts.messages import Reply
from limpet.contracts.stream_messages import CloseStream, OpenStream, Samples, StreamClosed
from limpet.contracts.tensors import Array, Tensors
from limpet.contracts.wire import Buffer, encode
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.io_loop import IoLoop
from limpet.runtime.replies import Refusals, Respond
from limpet.runtime.scheduler import ModelWorker
from limpet.runtime.stream import CREDITS, Stream
from limpet.runtime.stream_batch import push_together
from limpet.runtime.stream_table import StreamTable

MOST_WAITING = CREDITS + 2
"""Messages of a stream that may wait: what credits allow, an opening and a closing."""


class _Message(msgspec.Struct, frozen=True):
    """What a node asks of a stream; `values` (rows, channels) are those of its `Samples`."""

    stream: Stream
    request: OpenStream | Samples | CloseStream
    values: Array | None
    identity: bytes


class StreamRequests:
    """Queues what streams send at their models' workers, and answers it.

    Args:
        streams: The open ones.
        workers: By name of their model.
        log: Takes their alerts.
        io: Sends replies.
        refusals: Says what is not acknowledged.
    """

    def __init__(
        self,
        streams: StreamTable,
        workers: Mapping[str, ModelWorker],
        log: AlertLog,
        io: IoLoop,
        refusals: Refusals,
    ) -> None:
        self._streams, self._workers, self._log = streams, workers, log
        self._io, self._refusals = io, refusals

    def open(self, request: OpenStream, _: Tensors, __: Respond, ___: int, identity: bytes) -> None:
        """Accepts a request, in the I/O thread; raises `RejectedError` where it cannot."""
        stream = self._streams.open(request, identity)
        self._submit(_Message(stream, request, None, identity))

    def samples(
        self, request: Samples, tensors: Tensors, _: Respond, __: int, identity: bytes
    ) -> None:
        """As `open`."""
        stream = self._streams.get(request.stream, request.session, identity)
        if tensors.keys() != {"values"}:
            raise RejectedError("bad_input", f"wanted tensor 'values', found {sorted(tensors)}")
        if stream.pending >= CREDITS:
            raise RejectedError(
                "no_credit",
                f"{CREDITS} samples of stream {stream.name!r} wait",
                "wait for their scores",
            )
        self._submit(_Message(stream, request, tensors["values"], identity))

    def close(
        self, request: CloseStream, _: Tensors, __: Respond, ___: int, identity: bytes
    ) -> None:
        """As `open`."""
        stream = self._streams.get(request.stream, request.session, identity)
        self._submit(_Message(stream, request, None, identity))

    def _submit(self, message: _Message) -> None:
        """Queues a stream's message behind those that came before it."""
        stream = message.stream
        worker = self._workers[stream.model.name]
        if not worker.submit_to(stream, message, MOST_WAITING, self._run_together):
            stream.peer = b""  # else rows that follow would be taken, and these come late
            raise RejectedError(
                "overloaded",
                f"model {stream.model.name!r} has a full queue",
                "open the stream again and go on with these rows",
            )
        stream.pending += 1

    def _run_together(self, batch: Sequence[_Message]) -> None:
        """Answers one message each of different streams of a model, in its worker."""
        sent: list[tuple[bytes, list[Buffer]]] = []
        answers = self._answers(batch)
        for message, answer in zip(batch, answers, strict=True):

            def respond(
                reply: Reply, tensors: Tensors | None, identity: bytes = message.identity
            ) -> None:
                sent.append((identity, encode(reply, tensors)))

            if isinstance(answer, RejectedError):
                self._refusals.reject(respond, message.request.id, answer)
            elif isinstance(answer, BaseException):
                self._refusals.fail(respond, message.request.id, answer)
            else:
                respond(*answer)
        self._io.mailbox.put(functools.partial(self._send, [m.stream for m in batch], sent))

    def _send(
        self, streams: Sequence[Stream], replies: Sequence[tuple[bytes, list[Buffer]]]
    ) -> None:
        for stream in streams:  # before the replies: who reads one may use the credit at once
            stream.pending -= 1
        for identity, frames in replies:
            self._io.send(identity, frames)

    def _answers(
        self, batch: Sequence[_Message]
    ) -> list[tuple[Reply, Tensors | None] | BaseException]:
        samples = [
            (message.stream, message.request, message.values)
            for message in batch
            if isinstance(message.request, Samples) and message.values is not None
        ]
        pushed: Iterator[tuple[Reply, Tensors] | BaseException]
        try:
            pushed = iter(push_together(samples, self._log))
        except BaseException as error:  # noqa: BLE001 (answered and logged; a worker must not end)
            for stream, _, _ in samples:
                stream.fail()
            pushed = itertools.repeat(error)
        return [self._manage(each) if each.values is None else next(pushed) for each in batch]

    def _manage(self, message: _Message) -> tuple[Reply, None] | BaseException:
        """Opens or closes a stream."""
        stream, request = message.stream, message.request
        if isinstance(request, OpenStream):
            try:
                return stream.open(request), None
            except BaseException as error:  # noqa: BLE001 (as in `_answers`)
                return error
        self._io.mailbox.put(functools.partial(self._streams.remove, stream))
        closed = StreamClosed(id=request.id, stream=stream.name, next_sequence=stream.next_sequence)
        return closed, None
