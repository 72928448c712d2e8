"""Incidents of several streams that belong together become one group: correlation clustering.

Two incidents agree or disagree by a signed weight, and a clustering is the better the more
agreement lies within its groups and the more disagreement between them (Bansal, Blum and Chawla
2004); nobody says how many groups there are. Weights come from what the encoder embeds and from
time, after the idea of arXiv 2606.04733 (contrastive embeddings of sequences, then correlation
clustering).

An alert is published the moment its incident opens, so the clustering is online and final: a new
incident joins the group with which its weights sum to the most, where that is positive, else it
founds one. So each placement is the best there is while all earlier ones stand: the greedy rule
that Mathieu, Sankur and Schudy (2010) analyse, without the merges that they allow, since a group
that was published is never merged, split or renumbered.

Pure logic, no clock and no I/O. Dimension legend: e embedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np

from limpet.contracts.fingerprints import Fingerprint
from limpet.contracts.signals import Float32

REMEMBERED = 256
"""Incidents that a new one is compared with at most: the newest."""
FOUNDERS_REMEMBERED = 64
"""Groups after which what they share is forgotten, as the memory of a running mean."""
FOUNDERS_DOUBTED = 2
"""As many groups in which nothing is shared are assumed beforehand: after a first incident its own
direction must not be taken for what all incidents have in common."""


class GroupingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[grouping]` table: which incidents of several streams become one group."""

    enabled: bool = True
    """Whether incidents are grouped; without, the group of every alert is 0."""
    horizon_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    """Incidents that begin further apart than this do not belong together. None takes what a score
    looks back on, within which the two models' scores may notice one fault."""
    agreement: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.1
    """Incidents of one model agree from this cosine on, after what incidents have in common is
    taken out. Higher: more groups, and fewer incidents in one that have nothing to do with it."""
    across_models: bool = False
    """Whether incidents of different models may share a group. Their embeddings cannot be compared,
    so that time alone decides: for models that watch the same machine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Onset:
    """An incident as the clustering sees it.

    Attributes:
        stream: Its stream.
        space_id: Embedding space of the fingerprint.
        start_ns: When it began.
        fingerprint: What it looked like when it opened.
        group: Where it was put; 0 before.
        end_ns: When it closed; None while it is open.
    """

    stream: str
    space_id: str
    start_ns: int
    fingerprint: Fingerprint
    group: int = 0
    end_ns: int | None = None


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the founders of groups in one space have in common."""

    mean: Float32
    founders: int

    def removed_from(self, direction: Float32) -> Float32:
        """The direction without it. (e,)"""
        rest: Float32 = direction - self.mean * np.float32(
            self.founders / (self.founders + FOUNDERS_DOUBTED)
        )
        return rest

    def with_founder(self, direction: Float32) -> _Shared:
        weight = np.float32(1.0 / min(self.founders + 1, FOUNDERS_REMEMBERED))
        return _Shared(
            self.mean + weight * (direction - self.mean),
            min(self.founders + 1, FOUNDERS_REMEMBERED),
        )


class Correlator:
    """Groups of incidents, one incident after another.

    Args:
        config: What belongs together.
        known: Incidents of before, in order, with their groups.
    """

    def __init__(self, config: GroupingConfig, known: Iterable[tuple[int, Onset]] = ()) -> None:
        self.config = config
        self._onsets: dict[int, Onset] = {}
        self._shared: dict[str, _Shared] = {}
        for incident, onset in known:
            self._add(incident, onset)

    def copy(self) -> Correlator:
        """One that changes by itself: what it did is dropped where writing it down fails."""
        other = Correlator(self.config)
        other._onsets, other._shared = dict(self._onsets), dict(self._shared)
        return other

    def open(self, incident: int, onset: Onset) -> int:
        """Puts an incident into a group, for good.

        Args:
            incident: Its number, larger than all before.
            onset: What is known of it.

        Returns:
            The number of the group's first incident, `incident` where it founds one.
        """
        agreements: dict[int, float] = {}
        for other in self._onsets.values():
            weight = self.agreement(onset, other)
            if weight is not None:
                agreements[other.group] = agreements.get(other.group, 0.0) + weight
        group = max(agreements, key=agreements.__getitem__, default=incident)
        if agreements.get(group, 0.0) <= 0.0:
            group = incident
        self._add(incident, replace(onset, group=group))
        return group

    def close(self, incident: int, end_ns: int) -> None:
        """Notes an incident's end; of one that is forgotten already, nothing."""
        if incident in self._onsets:
            self._onsets[incident] = replace(self._onsets[incident], end_ns=end_ns)

    def agreement(self, new: Onset, old: Onset) -> float | None:
        """How much speaks for two incidents belonging together; below 0, against it.

        The cosine between their directions, without what incidents of this model have in common,
        minus the configured agreement. Where directions cannot be compared, time alone: from 1
        where both began at once to -1 where a horizon lies between them.

        Returns:
            None where nothing speaks for or against it: too far apart in time, or different models
            that may not share a group.
        """
        horizon_s = self.config.horizon_s or max(
            new.fingerprint.look_back_s, old.fingerprint.look_back_s
        )
        # A fault that comes and goes in one stream ends before it begins again.
        since_ns = old.start_ns if old.end_ns is None or new.stream != old.stream else old.end_ns
        apart_s = abs(new.start_ns - since_ns) / 1e9
        if apart_s > horizon_s:
            return None
        a, b = new.fingerprint.direction, old.fingerprint.direction
        if new.space_id != old.space_id:
            return 1.0 - 2.0 * apart_s / horizon_s if self.config.across_models else None
        if a is None or b is None:
            return 1.0 - 2.0 * apart_s / horizon_s
        shared = self._shared.get(new.space_id) or _Shared(np.zeros_like(a), 0)
        return cosine(shared.removed_from(a), shared.removed_from(b)) - self.config.agreement

    def _add(self, incident: int, onset: Onset) -> None:
        self._onsets[incident] = onset
        if len(self._onsets) > REMEMBERED:
            del self._onsets[next(iter(self._onsets))]
        direction = onset.fingerprint.direction
        if onset.group != incident or direction is None:
            return
        shared = self._shared.get(onset.space_id) or _Shared(np.zeros_like(direction), 0)
        self._shared[onset.space_id] = shared.with_founder(direction)


def cosine(a: Float32, b: Float32) -> float:
    """Cosine of the angle between two vectors, 0 where one has no length. (e,)"""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 0.0 else 0.0
