"""A mobile robot's node: sends what its camera sees, and says how to drive now.

    with MobileRobot("tcp://127.0.0.1:7700", "navigation") as robot:
        while True:
            command = robot.drive(image, goal, motion, captured_ns, wait_s=0.04)
            base.set_speeds(command.speed, command.turn_rate)

It follows the newest action, no longer than that is valid, and never one for an image that was too
old when it came. In every other case the command is to stop, and says why.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import LimpetError, RequestError, UsageError
from limpet.contracts.images import ChannelOrder
from limpet.contracts.messages import Reply
from limpet.contracts.tensors import Array, Tensors
from limpet.runtime.closing import Closing
from limpet.runtime.connection import Connection
from limpet.runtime.trip_memory import TripMemory

SILENT_S = 1.0
"""Time without any answer after which the server may be another one: its clock is measured anew."""
SYNC_S = 0.02
"""Longest wait for that within a tick of the control loop."""
FORGET_S = 2.0
"""Time after which a frame that got no answer counts as unanswered."""


@dataclass(frozen=True)
class Command:
    """How to drive now.

    Attributes:
        speed: Forward, m/s.
        turn_rate: Counter-clockwise, rad/s.
        state: `driving`; or why the robot stops: `waiting` (no action has come yet), `expired` (the
            last one is valid no more), or the cause or code of a refusal (`camera_frozen`, …).
        captured_ns: When the image was captured that an action answers, on this host's clock;
            None unless driving.
    """

    speed: float
    turn_rate: float
    state: str
    captured_ns: int | None = None


@dataclass
class DriveCounts:
    """What became of the frames, each counted once, and how often the robot had to stop.

    Attributes:
        frames: Frames that were to be sent.
        followed: Actions that were taken up.
        stale: Frames that the server answered by `Stale`, by stage (`replaced` among them).
        late: Actions that came when their image was too old, and were not taken up.
        superseded: Actions for older images than the last answer's, not taken up.
        refused: Frames that the server refused, by cause, else code.
        failed: Frames that the server failed at.
        unsent: Frames without a server to send them to.
        unanswered: Frames that got no answer.
        stops: Times that the robot stopped while it drove, by state.
        oldest_followed_s: Greatest age of an image whose action was driven by.
        latencies_s: From sending a frame to its action, of those taken up, the newest 10,000.
    """

    frames: int = 0
    followed: int = 0
    stale: dict[str, int] = field(default_factory=dict)
    late: int = 0
    superseded: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    unsent: int = 0
    unanswered: int = 0
    stops: dict[str, int] = field(default_factory=dict)
    oldest_followed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Names:
    image: str
    goal: str
    motion: str
    action: str
    memory: str = ""
    next_memory: str = ""


@dataclass(frozen=True)
class _Frame:
    captured_ns: int
    world_ns: int
    sent_s: float


@dataclass(frozen=True)
class _Action:
    speed: float
    turn_rate: float
    captured_ns: int
    valid_until_ns: int


class MobileRobot(Closing):
    """Drives by a served policy; belongs to one thread.

    Args:
        endpoint: The server's.
        model: Name of a served navigation model with a policy.
        camera: Name of the camera. Of its frames only the newest waits.
        max_age_s: Oldest image whose action is taken up.
        largest_speed: What the robot can do, m/s either way; commands are limited to it.
        largest_turn_rate: The same, rad/s.
        frame_s: Time of the robot's world from one frame to the next, where that is not the
            clock's, as in a simulation that waits for answers; None: frames are as old as their
            capture times say.
        name: Says in the server's log who asks.
        timeout_s: Longest wait for the server at first.

    Attributes:
        counts: What became of the frames.

    Raises:
        RequestTimeoutError: No server answers.
        UsageError: It serves no such model.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        camera: str = "camera",
        max_age_s: float = 0.2,
        largest_speed: float = math.inf,
        largest_turn_rate: float = math.inf,
        frame_s: float | None = None,
        name: str = "",
        timeout_s: float = 5.0,
    ) -> None:
        self.counts = DriveCounts()
        self._model, self._camera, self._max_age_s = model, camera, max_age_s
        self._most = largest_speed, largest_turn_rate
        self._waiting: dict[int, _Frame] = {}
        self._newest_id = 0
        self._action: _Action | None = None
        self._judged_ns = -1
        self._why_stopped = "waiting"
        self._was_driving = False
        self._frame_ns = None if frame_s is None else round(frame_s * 1e9)
        self._memory: TripMemory | None = None
        self._connection = Connection(endpoint, name or f"mobile-robot-{camera}")
        self._connection.on_other = self._take
        try:
            self._names = self._tensor_names(self._connection.hello(timeout_s))
            self._connection.sync_clock(timeout_s)
        except LimpetError:
            self._connection.close()
            raise
        self._heard_s = time.monotonic()

    def _tensor_names(self, welcome: messages.Welcome) -> _Names:
        models = {model.name: model for model in welcome.models}
        info = models.get(self._model)
        if info is None or info.kind != "navigation" or len(info.inputs) < 3:
            what = "is not there" if info is None else f"of kind {info.kind!r} has no policy"
            raise UsageError(
                f"model {self._model!r} {what}, at {self._connection.endpoint}",
                f"served: {', '.join(models)}",
            )
        image, goal, motion = (spec.name for spec in info.inputs[:3])
        how = info.memory
        if how is UNSET:
            return _Names(image, goal, motion, info.outputs[1].name)
        self._memory = TripMemory(how.step_s, how.longest_s)
        return _Names(image, goal, motion, info.outputs[1].name, how.input, how.output)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def begin_trip(self) -> None:
        """Forgets where the robot was: it was carried elsewhere. Needed at no other time."""
        if self._memory is not None:
            self._memory.begin(self._world_ns(self.now_ns(), self.counts.frames + 1))

    def _world_ns(self, captured_ns: int, frame: int) -> int:
        """When the robot's world was as a frame shows it, by its number and capture time."""
        return captured_ns if self._frame_ns is None else frame * self._frame_ns

    def now_ns(self) -> int:
        """This host's time, Unix ns, by a clock that does not step: for `captured_ns`."""
        return self._connection.host_time_ns()

    def drive(
        self,
        image: NDArray[np.uint8],
        goal: Array,
        motion: Array,
        captured_ns: int | None = None,
        *,
        channel_order: ChannelOrder | None = None,
        wait_s: float = 0.0,
    ) -> Command:
        """One tick of a control loop: `send`, `receive`, `command`."""
        self.send(image, goal, motion, captured_ns, channel_order=channel_order)
        self.receive(wait_s)
        return self.command()

    def send(
        self,
        image: NDArray[np.uint8],
        goal: Array,
        motion: Array,
        captured_ns: int | None = None,
        *,
        channel_order: ChannelOrder | None = None,
    ) -> None:
        """Sends a frame; where no server is connected it is counted and dropped.

        Args:
            image: uint8 (H, W, 3), of any size; copied, so that a driver may use its buffer again.
            goal: Distance (m), cosine and sine of its bearing in the robot's frame. (3,)
            motion: Forward speed (m/s) and turn rate (rad/s) driven last. (2,)
            captured_ns: When the image was captured, Unix ns on this host's clock; default: now.
            channel_order: Of the image; None is RGB.
        """
        self.counts.frames += 1
        self._forget()
        if captured_ns is None:
            captured_ns = self.now_ns()
        names = self._names
        tensors: dict[str, Array] = {
            names.image: np.array(image),
            names.goal: np.asarray(goal, np.float32),
            names.motion: np.asarray(motion, np.float32),
        }
        world_ns = self._world_ns(captured_ns, self.counts.frames)
        if self._memory is not None and (memory := self._memory.before(world_ns)) is not None:
            tensors[names.memory] = memory
        try:
            if time.monotonic() - self._heard_s > SILENT_S:
                self._connection.sync_clock(SYNC_S)
                self._heard_s = time.monotonic()
            request = messages.Infer(
                id=self._connection.next_id(),
                model=self._model,
                capture_time_ns=self._connection.server_time_ns(captured_ns, SYNC_S),
                max_age_ns=round(self._max_age_s * 1e9),
                replaces=self._camera,
                channel_order=channel_order or UNSET,
            )
            now_s = time.monotonic()
            self._connection.send(request, tensors, now_s)
        except RequestError:
            self.counts.unsent += 1
            return
        self._newest_id = request.id
        self._waiting[request.id] = _Frame(captured_ns, world_ns, now_s)

    def receive(self, wait_s: float = 0.0) -> None:
        """Takes the answers that have come; waits so long for the newest frame's, at most."""
        deadline_s = time.monotonic() + wait_s
        while True:
            wanted = self._newest_id in self._waiting
            answer = self._connection.receive(deadline_s if wanted else time.monotonic())
            if answer is None:
                return
            self._take(*answer)

    def command(self) -> Command:
        """How to drive now."""
        now_ns, action = self.now_ns(), self._action
        if action is not None and now_ns >= action.valid_until_ns:
            self._action, self._why_stopped, action = None, "expired", None
        if action is None:
            if self._was_driving:
                _count(self.counts.stops, self._why_stopped)
            self._was_driving = False
            return Command(0.0, 0.0, self._why_stopped)
        self._was_driving = True
        age_s = (now_ns - action.captured_ns) / 1e9
        self.counts.oldest_followed_s = max(self.counts.oldest_followed_s, age_s)
        speed, turn_rate = (
            min(most, max(-most, value))
            for most, value in zip(self._most, (action.speed, action.turn_rate), strict=True)
        )
        return Command(speed, turn_rate, "driving", action.captured_ns)

    def _take(self, reply: Reply, outputs: Tensors) -> None:
        frame = self._waiting.pop(reply.id, None)
        if frame is None:
            return
        self._heard_s = time.monotonic()
        if isinstance(reply, messages.Result):
            self._take_action(frame, reply, outputs)
        elif isinstance(reply, messages.Stale):
            _count(self.counts.stale, reply.stage)
        elif isinstance(reply, messages.Rejected):
            cause = reply.code if reply.cause is UNSET else reply.cause
            _count(self.counts.refused, cause)
            # Other codes say nothing of the frame: the action before it stands while it is valid.
            if reply.code == "bad_input" and frame.captured_ns > self._judged_ns:
                self._judged_ns = frame.captured_ns
                self._action, self._why_stopped = None, cause
        else:
            self.counts.failed += 1

    def _take_action(self, frame: _Frame, reply: messages.Result, outputs: Tensors) -> None:
        if self._memory is not None:  # however late: it says when the world was so
            self._memory.keep(frame.world_ns, outputs[self._names.next_memory])
        now_ns = self.now_ns()
        last_ns = frame.captured_ns + round(self._max_age_s * 1e9)
        valid_until_ns = last_ns
        if reply.valid_until_ns is not UNSET:
            valid_until_ns = self._connection.host_time_ns(reply.valid_until_ns)
        if now_ns > min(last_ns, valid_until_ns):
            self.counts.late += 1
        elif frame.captured_ns <= self._judged_ns:
            self.counts.superseded += 1
        else:
            speed, turn_rate = map(float, outputs[self._names.action])
            self._judged_ns = frame.captured_ns
            self._action = _Action(speed, turn_rate, frame.captured_ns, valid_until_ns)
            self.counts.followed += 1
            self.counts.latencies_s.append(time.monotonic() - frame.sent_s)
            del self.counts.latencies_s[:-10_000]

    def _forget(self) -> None:
        """Counts frames that will get no answer any more."""
        oldest_s = time.monotonic() - FORGET_S
        lost = [number for number, frame in self._waiting.items() if frame.sent_s < oldest_s]
        for number in lost:
            del self._waiting[number]
        self.counts.unanswered += len(lost)


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
