"""The sensor streams of a server by name, and the sessions that feed them."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence

from limpet.contracts.clock import Clock
from limpet.contracts.errors import ConfigError, RejectedError
from limpet.contracts.stream_messages import OpenStream
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.config import StreamConfig
from limpet.runtime.models import ServedModel
from limpet.runtime.stream import Stream
from limpet.runtime.stream_alerts import make_detector


class StreamTable:
    """Streams by name. Used from the I/O thread alone.

    Args:
        configs: `[[streams]]` tables; the first that matches a name holds.
        models: Served models by name.
        log: The alert log.
        clock: The server's.
        max_streams: Streams that may be open at a time.

    Raises:
        ConfigError: A table names a model that is not served or scores no streams, or its
            thresholds do not fit together.
    """

    def __init__(
        self,
        configs: Sequence[StreamConfig],
        models: Mapping[str, ServedModel],
        log: AlertLog,
        clock: Clock,
        max_streams: int,
    ) -> None:
        self._configs, self._log, self._clock = configs, log, clock
        self._max_streams = max_streams
        self._scoring = {k: m for k, m in models.items() if m.manifest.kind == "anomaly"}
        self._streams: dict[str, Stream] = {}
        for config in configs:
            if config.model and config.model not in self._scoring:
                raise ConfigError(
                    f"streams {config.match!r} name model {config.model!r}, which is not served "
                    "or scores no streams",
                    f"models that do: {', '.join(self._scoring) or 'none'}",
                )
            for name, model in self._scoring.items():
                detector = make_detector(model, config)
                if config.model in ("", name) and detector.release_threshold > detector.threshold:
                    raise ConfigError(
                        f"streams {config.match!r}: release_threshold is "
                        f"{detector.release_threshold:g}, wanted at most the threshold of model "
                        f"{name!r}, {detector.threshold:g}"
                    )

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, request: OpenStream, peer: bytes) -> Stream:
        """The stream that a session may feed from now on, over the connection `peer`.

        Raises:
            RejectedError: A live session feeds it, no model fits, it lacks a channel of the model,
                or there are too many streams.
        """
        stream = self._streams.get(request.stream)
        if stream is not None and stream.session == request.session:
            _check_channels(stream.model, request)
            stream.peer, stream.last_seen_s = peer, time.monotonic()
            return stream
        if stream is not None and not stream.is_silent:
            raise RejectedError(
                "stream_taken",
                f"stream {request.stream!r} is fed by another node",
                "give this one another name, or wait until that node has been silent for "
                f"{stream.config.silent_after_s:g} s",
            )
        config = next((c for c in self._configs if fnmatch.fnmatch(request.stream, c.match)), None)
        if config is None:
            raise RejectedError("unknown_stream", f"no [[streams]] table fits {request.stream!r}")
        model = self._model(request.model or config.model)
        _check_channels(model, request)
        if stream is None and len(self._streams) >= self._max_streams:
            silent = next((s for s in self if s.is_silent), None)
            if silent is None:
                raise RejectedError(
                    "overloaded",
                    f"{self._max_streams} streams are open, max_streams allows no more",
                )
            del self._streams[silent.name]
        self._streams[request.stream] = Stream(
            request.stream, request.session, peer, model, config, self._log, self._clock
        )
        return self._streams[request.stream]

    def get(self, name: str, session: str, peer: bytes) -> Stream:
        """The stream that a session has opened over the connection `peer`.

        A connection that broke may have lost messages. What comes over the next one is refused
        until the session has opened the stream there, so that it sends the lost ones first.

        Raises:
            RejectedError: It has not, or another took its place.
        """
        stream = self._streams.get(name)
        if stream is None or (stream.session, stream.peer) != (session, peer):
            raise RejectedError(
                "unknown_stream",
                f"stream {name!r} is not open in this session over this connection",
                "open it again",
            )
        stream.last_seen_s = time.monotonic()
        return stream

    def remove(self, stream: Stream) -> None:
        """Forgets a stream that its node has closed."""
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def _model(self, name: str) -> ServedModel:
        if not name and len(self._scoring) == 1:
            return next(iter(self._scoring.values()))
        if name not in self._scoring:
            raise RejectedError(
                "unknown_model",
                f"no model {name!r} that scores streams" if name else "which model is not said",
                f"models that do: {', '.join(self._scoring) or 'none'}",
            )
        return self._scoring[name]


def _check_channels(model: ServedModel, request: OpenStream) -> None:
    wanted = model.manifest.signal().channels
    missing = [name for name in wanted if name not in request.channels]
    if missing:
        raise RejectedError(
            "bad_input",
            f"stream {request.stream!r} lacks channel {', '.join(map(repr, missing))}, "
            f"found {request.channels}",
            f"model {model.name!r} wants {wanted}",
        )
