"""A node of a robot that talks to a server: `RobotClient` asks for inferences.

    with RobotClient("tcp://127.0.0.1:7700") as robot:
        answer = robot.infer("grasp", {"depth": depth}, max_age_s=0.2, timeout_s=0.5)

Every wait has a timeout, and a timed-out client goes on working. It belongs to one thread.
"""

from __future__ import annotations

import time

import msgspec
from msgspec import UNSET

from limpet.contracts import messages
from limpet.contracts.errors import StaleReplyError
from limpet.contracts.images import ChannelOrder
from limpet.contracts.tensors import Tensors
from limpet.runtime.closing import Closing
from limpet.runtime.connection import Connection


class Inference(msgspec.Struct, frozen=True, eq=False):
    """A finished inference.

    Attributes:
        outputs: The model's outputs by name, read-only.
        space_id: The embedding space they live in.
        engine: What computed them.
        queue_s: Wait in the server.
        inference_s: Preprocessing and engine.
        total_s: From arrival to reply, in the server.
        valid_until_ns: When an action must no longer be followed, on this host's clock (Unix ns);
            None where there is none.
    """

    outputs: Tensors
    space_id: str
    engine: str
    queue_s: float
    inference_s: float
    total_s: float
    valid_until_ns: int | None = None


class RobotClient(Connection, Closing):
    """A robot node: asks for inferences, one at a time."""

    def infer(
        self,
        model: str,
        inputs: Tensors,
        *,
        capture_time_ns: int | None = None,
        max_age_s: float | None = None,
        priority: int = 0,
        replaces: str = "",
        channel_order: ChannelOrder | None = None,
        timeout_s: float = 1.0,
    ) -> Inference:
        """Runs a model.

        Args:
            model: Name of a served model.
            inputs: Its input tensors by name, as `hello` describes them.
            capture_time_ns: When they were measured, on this host's clock (Unix ns).
            max_age_s: Oldest input still worth an answer, where that arrives.
            priority: Higher ones are served first.
            replaces: A waiting request of this client with the same key is dropped for this one.
            channel_order: Of the image, where the model takes one; None is RGB.
            timeout_s: Longest wait for the reply.

        Raises:
            RequestTimeoutError, StaleReplyError, RejectedError, FailedError: No result, and why.
        """
        captured_ns = capture_time_ns
        if capture_time_ns is not None:
            deadline_s = time.monotonic() + timeout_s
            capture_time_ns = self.server_time_ns(capture_time_ns, timeout_s)
            timeout_s = deadline_s - time.monotonic()
        reply, outputs = self.request(
            messages.Infer(
                id=self.next_id(),
                model=model,
                capture_time_ns=capture_time_ns,
                max_age_ns=None if max_age_s is None else round(max_age_s * 1e9),
                priority=priority,
                replaces=replaces,
                channel_order=channel_order or UNSET,
            ),
            messages.Result,
            timeout_s,
            inputs,
        )
        if captured_ns is not None and max_age_s is not None:
            # The server said so when it was young enough; the way to here took time as well.
            age_s = (self._clock.now_ns() - captured_ns) / 1e9
            if age_s > max_age_s:
                raise StaleReplyError(
                    f"input was {age_s * 1000:.1f} ms old when its result came, at most "
                    f"{max_age_s * 1000:.1f} ms wanted"
                )
        return Inference(
            outputs,
            reply.space_id,
            reply.engine,
            reply.queue_ns / 1e9,
            reply.inference_ns / 1e9,
            reply.total_ns / 1e9,
            None if reply.valid_until_ns is UNSET else self.host_time_ns(reply.valid_until_ns),
        )
