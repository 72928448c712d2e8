"""A tensor in two memories: pinned on the host, and the GPU's, which on a Jetson are one."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limpet.contracts.tensors import Array
from limpet.runtime.engines.device import Device


class PinnedTensor:
    """Room for a tensor of any size up to one, allocated once.

    Args:
        device: The GPU.
        dtype: Of its elements.
        elements: Most that it will hold.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], elements: int) -> None:
        self._device, self._dtype = device, dtype
        size = max(1, elements) * dtype.itemsize
        self._pinned = device.allocate_pinned(size)
        try:
            shared = device.shares_memory
            self.address = device.mapped(self._pinned) if shared else device.allocate(size)
        except BaseException:
            device.free_pinned(self._pinned)
            raise
        self._bytes: NDArray[np.uint8] = np.ctypeslib.as_array(
            (ctypes.c_uint8 * size).from_address(self._pinned)
        )

    def host(self, shape: tuple[int, ...]) -> Array:
        """The host's memory as an array; a view, which the next run overwrites."""
        return self._bytes[: self.size(shape)].view(self._dtype).reshape(shape)

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of that shape."""
        return int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize

    def to_device(self, shape: tuple[int, ...], stream: Any) -> None:
        """Puts into the stream what makes the GPU see what the host wrote."""
        if not self._device.shares_memory:
            self._device.to_device(self.address, self._pinned, self.size(shape), stream)

    def to_host(self, shape: tuple[int, ...], stream: Any) -> None:
        """Puts into the stream what makes the host see what the GPU wrote."""
        if not self._device.shares_memory:
            self._device.to_host(self._pinned, self.address, self.size(shape), stream)

    def free(self) -> None:
        """Gives the memory back; arrays that `host` gave must not be used any more."""
        self._bytes = np.empty(0, np.uint8)
        if not self._device.shares_memory:
            self._device.free(self.address)
        self._device.free_pinned(self._pinned)
