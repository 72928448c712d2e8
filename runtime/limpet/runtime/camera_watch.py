"""Whether a camera shows anything: black, blown-out, flat and frozen images are named, not used.

An encoder embeds a black image as confidently as any other, and a policy acts on that.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np

from limpet.contracts.errors import ImplausibleError
from limpet.contracts.images import Float32, Uint8

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

DARKEST, BRIGHTEST = 16.0, 250.0
"""Values that darkness and blown-out pixels stay below, or above, of 255. In 400 rendered test
images the 99th percentile is at least 150 and the first at most 157."""
MOST = 0.99
"""Share of an image's values that must be so; the rest may be hot pixels or a time stamp."""
FLATTEST = 0.5
"""Standard deviation of each channel below which an image is one colour. Of a bare wall, close up,
it is 4.5 in the same images."""
FROZEN_AFTER = 3
"""Images equal to the one before, each captured later, after which a moving robot's camera is
frozen. At 20 Hz that is 0.15 s, 8 cm at half a metre per second."""
FROZEN_STANDING_AFTER = 20
"""The same where the robot says that it stands, though every answer told it to drive: at 20 Hz a
second, longer than a base takes to start. A camera that lives has noise, unless it is simulated."""
MOST_CAMERAS = 8
"""Cameras of one client that are remembered, those that sent last; nobody else's suffer."""
MOST_CLIENTS = 1024
"""Clients that are remembered, those that sent last."""


def check_exposure(small_hw3: Float32) -> None:
    """Refuses an image that shows nothing.

    Args:
        small_hw3: The image in the encoder's size, values 0 to 255.

    Raises:
        ImplausibleError: `image_black`, `image_bright` or `image_flat`.
    """
    dark, bright = (small_hw3 < DARKEST).mean(), (small_hw3 > BRIGHTEST).mean()
    if dark >= MOST:
        raise ImplausibleError(
            "image_black",
            f"the image is black: {dark:.1%} of its values are below {DARKEST:g} of 255",
            "look at light, lens cap and exposure",
        )
    if bright >= MOST:
        raise ImplausibleError(
            "image_bright",
            f"the image is blown out: {bright:.1%} of its values are above {BRIGHTEST:g} of 255",
            "look at exposure and glare",
        )
    # Channel by channel in memory: ten times quicker.
    spread = np.ascontiguousarray(small_hw3.reshape(-1, 3).T).std(axis=1).max()
    if spread < FLATTEST:
        raise ImplausibleError(
            "image_flat",
            f"the image is of one colour: its standard deviation is {spread:.2g} of 255",
            "is there a camera at the driver's end?",
        )


class CameraWatch:
    """Tells whether one camera is frozen."""

    def __init__(self) -> None:
        self._seen = -1
        self._captured_ns = -1
        self._repeats = self._repeats_moving = 0

    def check(self, image: Uint8, captured_ns: int, moving: bool) -> None:
        """Takes the next image.

        An image that comes again with the same capture time was sent again and proves nothing.
        Frozen is frozen until another image comes: a robot that stops for it must not start again.
        It is for images that are answered with an action; others may be the same for ever.

        Args:
            image: As the camera gave it.
            captured_ns: When.
            moving: Whether the robot says that it moves.

        Raises:
            ImplausibleError: `camera_frozen`.
        """
        seen = zlib.crc32(np.ascontiguousarray(image).data)
        if seen != self._seen:
            self._seen, self._captured_ns = seen, captured_ns
            self._repeats = self._repeats_moving = 0
            return
        if captured_ns > self._captured_ns and not self._frozen:
            self._repeats += 1
            self._repeats_moving += moving
        self._captured_ns = max(captured_ns, self._captured_ns)
        if self._frozen:
            raise ImplausibleError(
                "camera_frozen",
                f"the camera is frozen: {self._repeats} later images or more equal one another, "
                "byte for byte, while the robot "
                + ("moves" if self._repeats_moving >= FROZEN_AFTER else "is told to"),
                "restart the camera or its driver",
            )

    @property
    def _frozen(self) -> bool:
        return self._repeats_moving >= FROZEN_AFTER or self._repeats >= FROZEN_STANDING_AFTER


class CameraWatches:
    """The cameras of all clients of a model, as many as are remembered."""

    def __init__(self) -> None:
        self._clients: OrderedDict[bytes, OrderedDict[str, CameraWatch]] = OrderedDict()

    def of(self, client: bytes, camera: str) -> CameraWatch:
        """A client's camera, a new one where it is not remembered."""
        cameras = _recalled(self._clients, client, OrderedDict[str, CameraWatch], MOST_CLIENTS)
        return _recalled(cameras, camera, CameraWatch, MOST_CAMERAS)


def _recalled(
    table: OrderedDict[Key, Value], key: Key, make: Callable[[], Value], most: int
) -> Value:
    """The entry of a key, made where there is none; the longest unused ones are forgotten."""
    found = table.get(key)
    if found is None:
        found = table[key] = make()
        if len(table) > most:
            table.popitem(last=False)
    table.move_to_end(key)
    return found
