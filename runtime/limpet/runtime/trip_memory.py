"""What a policy remembers of a robot's trip, kept by whoever asks it.

Each answer carries a memory of the world as it was when that answer's image was captured. A memory
goes with an image that was captured one step later, as in training, however often images are sent:
at twice the rate two chains of memories alternate. An answer that never came leaves no mark, and
where all are too old the trip begins anew.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from limpet.contracts.tensors import Array

KEPT = 64
"""Memories kept: half a second at 128 frames a second."""
EARLY = 0.25
"""Share of a step by which a memory may be younger: frames do not come like clockwork."""


class TripMemory:
    """The memories of one robot's newest images; it belongs to one thread.

    Args:
        step_s: How much older than an image the memory is that goes with it.
        longest_s: How much older it may be.
    """

    def __init__(self, step_s: float, longest_s: float) -> None:
        self._step_ns = round(step_s * 1e9)
        self._youngest_ns = round((1 - EARLY) * step_s * 1e9)
        self._oldest_ns = round(longest_s * 1e9)
        self._kept: deque[tuple[int, Array]] = deque(maxlen=KEPT)
        self._begin_ns: int | None = None

    def begin(self, now_ns: int) -> None:
        """A trip begins: what was captured before is forgotten, also where its answer still comes.

        Args:
            now_ns: From when on images belong to the trip.
        """
        self._kept.clear()
        self._begin_ns = now_ns

    def keep(self, captured_ns: int, memory: Array) -> None:
        """Keeps a memory that an answer brought.

        Args:
            captured_ns: When its image was captured.
            memory: Copied.
        """
        if self._begin_ns is None or captured_ns >= self._begin_ns:
            self._kept.append((captured_ns, np.array(memory)))

    def before(self, captured_ns: int) -> Array | None:
        """The memory that is as nearly as can be a step older than an image; None where a trip
        begins.
        """
        ages = [(captured_ns - at_ns, memory) for at_ns, memory in self._kept]
        fit = [(age, m) for age, m in ages if self._youngest_ns <= age <= self._oldest_ns]
        return min(fit, key=lambda each: abs(each[0] - self._step_ns))[1] if fit else None
