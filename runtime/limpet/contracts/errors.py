"""Every error limpet raises on purpose.

    LimpetError                    exit code 1
    ├── UsageError                 2  a command's arguments don't fit together
    ├── MissingExtraError          3  an optional dependency is not installed
    ├── ImpossibleHereError        4  this machine cannot do it (no GPU, say)
    ├── DataError                  a recording cannot be read or used
    ├── ConfigError                a configuration file is wrong (path and line)
    ├── BundleError                a bundle is damaged, foreign or of another schema
    ├── TensorError                an array does not fit its TensorSpec
    │   └── ImplausibleError       it fits, but what it says cannot be so (`cause`)
    ├── ExportError                a model cannot be converted to ONNX
    ├── EngineError                an inference engine cannot load or run a model
    ├── WireError                  bytes that are no message of this protocol
    │   └── VersionError           a message of another protocol version
    ├── AlertLogError              the durable alert log cannot be opened or written
    └── RequestError               a client's request ended without a result
        ├── RequestTimeoutError    no reply within the timeout
        ├── StaleReplyError        the input was older than its maximum age
        ├── RejectedError          the server refused the request
        └── FailedError            the server accepted the request and could not finish it

An error says what was found, what was wanted and where; `hint` is what to do next.
"""

from __future__ import annotations

from typing import Literal

RejectCode = Literal[
    "malformed",  # the bytes are no message
    "version",  # another protocol version
    "unknown_model",
    "unknown_stream",  # not opened, or opened before the server restarted: open it again
    "stream_taken",  # another live session feeds it
    "bad_input",  # tensors or channels do not fit the model
    "overloaded",  # a queue is full
    "no_credit",  # more unacknowledged samples than credits
    "stopping",  # the server is shutting down
]

Cause = Literal[
    "image_black",  # a covered lens, a camera without light
    "image_bright",  # blown out
    "image_flat",  # one colour: no camera behind it
    "camera_frozen",  # the same image again and again while the robot moves
    "goal",  # no number, or a place that cannot be
    "proprioception",  # no number, or speeds that cannot be
    "depth_empty",  # not one pixel was measured
    "depth_unit",  # millimetres given as metres, or the other way round
    "cloud_small",  # too few points to find anything in
    "intrinsics",  # no camera's, or those of another resolution
    "relative_pose",  # of the auxiliary camera: no rotation, or too far away
    "base_pose",  # of the camera on the robot: the same
    "memory",  # no number, or not what a result before carried
]
"""Why an input of the right shape is refused: a robot has to stop, or to look after itself."""


class LimpetError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What was found, what was wanted, where.
        hint: What the reader can do about it, one sentence or a command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(LimpetError):
    """A command's arguments don't fit together."""

    exit_code = 2


class MissingExtraError(LimpetError):
    """An optional dependency is not installed."""

    exit_code = 3

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(
            f"this needs {module}, which is not installed", f"pip install 'limpet[{extra}]'"
        )
        self.extra = extra


class ImpossibleHereError(LimpetError):
    """This machine cannot do what was asked, and no installation changes that."""

    exit_code = 4


class DataError(LimpetError):
    """A recording cannot be read or used."""


class ConfigError(LimpetError):
    """A configuration file is wrong; the message starts with path and line."""


class BundleError(LimpetError):
    """A bundle is damaged, incomplete, foreign or of another schema version."""


class TensorError(LimpetError):
    """An array does not fit its TensorSpec."""


class ImplausibleError(TensorError):
    """An array fits its TensorSpec, but what it says cannot be so; `cause` names the state."""

    def __init__(self, cause: Cause, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.cause: Cause = cause


class ExportError(LimpetError):
    """A model cannot be converted to ONNX."""


class EngineError(LimpetError):
    """An inference engine cannot load or run a model."""


class WireError(LimpetError):
    """Bytes that are no message of this protocol."""


class VersionError(WireError):
    """A message of another protocol version."""


class AlertLogError(LimpetError):
    """The durable alert log cannot be opened or written."""


class RequestError(LimpetError):
    """A client's request ended without a result."""


class RequestTimeoutError(RequestError):
    """No reply within the timeout."""


class StaleReplyError(RequestError):
    """The input was older than its maximum age when the server came to it, or its result came."""


class RejectedError(RequestError):
    """The server refused the request; `code` says why in one word, `cause` names an input's
    state where that is why.
    """

    def __init__(self, code: RejectCode, reason: str, hint: str = "", cause: str = "") -> None:
        super().__init__(f"{code}: {reason}", hint)
        self.code = code
        self.reason = reason
        self.cause = cause


class FailedError(RequestError):
    """The server accepted the request and could not finish it."""
