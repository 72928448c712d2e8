from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.contracts.correlation import REMEMBERED, Correlator, GroupingConfig, Onset
from limpet.contracts.fingerprints import Fingerprint

SIZE = 16
DIRECTIONS = np.eye(SIZE, dtype=np.float32)
LOOK_BACK_S = 100.0


def onset(
    direction: int | None = 0,
    start_s: float = 0.0,
    *,
    stream: str = "pump",
    space_id: str = "space",
    look_back_s: float = LOOK_BACK_S,
) -> Onset:
    """An incident that leaves normal along one axis."""
    found = None if direction is None else DIRECTIONS[direction]
    return Onset(
        stream=stream,
        space_id=space_id,
        start_ns=round(start_s * 1e9),
        fingerprint=Fingerprint(look_back_s, found),
    )


def groups(onsets: Sequence[Onset], config: GroupingConfig = GroupingConfig()) -> list[int]:  # noqa: B008
    correlator = Correlator(config)
    return [correlator.open(number, each) for number, each in enumerate(onsets, start=1)]


def test_the_first_incident_founds_a_group_and_an_alike_one_joins_it() -> None:
    assert groups([onset(0), onset(0, 5.0, stream="mixer")]) == [1, 1]


def test_incidents_that_leave_normal_in_other_directions_are_apart() -> None:
    assert groups([onset(0), onset(1), onset(0), onset(2), onset(1)]) == [1, 2, 1, 4, 2]


def test_incidents_further_apart_than_a_score_looks_back_are_apart() -> None:
    assert groups([onset(0), onset(0, 100.0), onset(0, 200.5)]) == [1, 1, 3]
    assert groups([onset(0, look_back_s=10.0), onset(0, 50.0)]) == [1, 1]  # the longer one counts


def test_a_configured_horizon_takes_the_place_of_the_look_back() -> None:
    assert groups([onset(0), onset(0, 10.0)], GroupingConfig(horizon_s=9.0)) == [1, 2]
    assert groups([onset(0), onset(0, 1e6)], GroupingConfig(horizon_s=2e6)) == [1, 1]


def test_a_fault_that_spreads_slowly_stays_one_group() -> None:
    assert groups([onset(0, 80.0 * i, stream=str(i)) for i in range(6)]) == [1] * 6


def test_a_fault_that_comes_back_in_its_stream_is_near_its_own_end_not_its_beginning() -> None:
    for stream, expected in (("pump", 1), ("mixer", 2)):
        correlator = Correlator(GroupingConfig())
        correlator.open(1, onset(0))
        correlator.close(1, round(900e9))
        assert correlator.open(2, onset(0, 950.0, stream=stream)) == expected


def test_what_all_incidents_have_in_common_makes_none_alike() -> None:
    def tilted(direction: int, start_s: float) -> Onset:
        """Mostly along axis 0, as of a model for which every fault looks much the same."""
        found = 0.9 * DIRECTIONS[0] + np.sqrt(1.0 - 0.81) * DIRECTIONS[direction]
        return Onset(
            stream="pump",
            space_id="space",
            start_ns=round(start_s * 1e9),
            fingerprint=Fingerprint(LOOK_BACK_S, found.astype(np.float32)),
        )

    # Far apart in time, so each founds a group and teaches what they share.
    history = [tilted(1 + i % 8, 1e4 * i) for i in range(40)]
    found = groups([*history, tilted(9, 1e6), tilted(10, 1e6), tilted(9, 1e6), tilted(10, 1e6)])
    assert found[-4:] == [41, 42, 41, 42]
    # Without a history their cosine of 0.81 is all that is known.
    assert groups([tilted(9, 0.0), tilted(10, 0.0)]) == [1, 1]


def test_incidents_of_several_models_share_a_group_only_where_that_is_configured() -> None:
    both = [onset(0), onset(1, 20.0, space_id="other"), onset(2, 90.0, space_id="third")]
    assert groups(both) == [1, 2, 3]
    assert groups(both, GroupingConfig(across_models=True)) == [1, 1, 3]  # 90 s are too late


def test_without_a_direction_time_alone_speaks() -> None:
    assert groups([onset(None), onset(0, 20.0), onset(None, 79.0)]) == [1, 1, 3]


def test_a_group_is_chosen_by_the_sum_of_what_speaks_for_and_against_it() -> None:
    # Half way between two groups, of which one has two members.
    between = Fingerprint(LOOK_BACK_S, (DIRECTIONS[0] + DIRECTIONS[1]) / np.float32(np.sqrt(2.0)))
    new = Onset(stream="new", space_id="space", start_ns=0, fingerprint=between)
    assert groups([onset(0), onset(1), onset(1), new])[-1] == 2
    assert groups([onset(1), onset(0), onset(0), new])[-1] == 2


def test_groups_that_were_given_out_never_change_and_a_later_incident_merges_none() -> None:
    correlator = Correlator(GroupingConfig())
    assert [correlator.open(1, onset(0)), correlator.open(2, onset(1))] == [1, 2]
    both = Fingerprint(LOOK_BACK_S, (DIRECTIONS[0] + DIRECTIONS[1]) / np.float32(np.sqrt(2.0)))
    bridge = Onset(stream="both", space_id="space", start_ns=0, fingerprint=both)
    assert correlator.open(3, bridge) == 1
    assert [correlator.open(4, onset(0)), correlator.open(5, onset(1))] == [1, 2]


def test_a_copy_changes_by_itself() -> None:
    correlator = Correlator(GroupingConfig())
    draft = correlator.copy()
    assert draft.open(1, onset(0)) == 1
    assert draft.open(2, onset(0)) == 1
    assert correlator.open(2, onset(0)) == 2


def test_memory_is_bounded() -> None:
    correlator = Correlator(GroupingConfig(horizon_s=1e9))
    correlator.open(1, onset(0))
    for number in range(2, REMEMBERED + 2):
        correlator.open(number, onset(1))
    assert len(correlator._onsets) == REMEMBERED
    correlator.close(1, 0)  # of one that is forgotten: nothing happens
    assert correlator.open(REMEMBERED + 2, onset(0)) == REMEMBERED + 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 400.0)), max_size=30), st.integers(0, 30)
)
def test_one_that_was_restored_goes_on_as_if_nothing_had_happened(
    incidents: list[tuple[int, float]], cut: int
) -> None:
    onsets = [onset(direction, start_s) for direction, start_s in incidents]
    whole = groups(onsets)
    known = []
    for number, (each, group) in enumerate(zip(onsets, whole, strict=True), start=1):
        fields = {name: getattr(each, name) for name in ("stream", "space_id", "start_ns")}
        known.append((number, Onset(**fields, fingerprint=each.fingerprint, group=group)))
    restored = Correlator(GroupingConfig(), known[:cut])
    rest = [restored.open(n, each) for n, each in enumerate(onsets, start=1) if n > cut]
    assert whole[:cut] + rest == whole


# Against the best there is ------------------------------------------------------------------------


class Weighted(Correlator):
    """Takes weights as they are given, by the numbers in the streams' names."""

    def __init__(self, weights: Mapping[tuple[int, int], float]) -> None:
        super().__init__(GroupingConfig())
        self._weights = weights

    def agreement(self, new: Onset, old: Onset) -> float | None:
        return self._weights[int(old.stream), int(new.stream)]


def online(weights: Mapping[tuple[int, int], float], n: int) -> list[int]:
    correlator = Weighted(weights)
    return [correlator.open(i + 1, onset(None, stream=str(i))) for i in range(n)]


def value(weights: Mapping[tuple[int, int], float], placed: Sequence[int]) -> float:
    """Agreement within groups; what lies between them differs from it by a constant."""
    return sum(w for (i, j), w in weights.items() if placed[i] == placed[j])


def clusterings(n: int) -> Iterator[list[int]]:
    """All ways to put n things into groups."""
    if n == 0:
        yield []
        return
    for rest in clusterings(n - 1):
        for group in range(max(rest, default=-1) + 2):
            yield [*rest, group]


def all_pairs(n: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(n), 2))


def test_every_clustering_of_six_is_tried() -> None:
    assert sum(1 for _ in clusterings(6)) == 203  # Bell's number


@given(st.permutations([0, 0, 0, 1, 1, 2, 3]), st.randoms(use_true_random=False))
def test_groups_without_contradictions_are_found_exactly_in_any_order(
    truth: list[int], random: st.DataObject
) -> None:
    weights = {
        (i, j): random.uniform(0.1, 1.0) * (1 if truth[i] == truth[j] else -1)  # type: ignore[attr-defined]
        for i, j in all_pairs(len(truth))
    }
    placed = online(weights, len(truth))
    assert [placed[i] == placed[j] for i, j in weights] == [
        truth[i] == truth[j] for i, j in weights
    ]
    assert value(weights, placed) == max(value(weights, c) for c in clusterings(len(truth)))


@given(st.lists(st.floats(-1.0, 1.0), min_size=15, max_size=15))
def test_each_placement_is_the_best_while_the_earlier_ones_stand(values: list[float]) -> None:
    weights = dict(zip(all_pairs(6), values, strict=True))
    placed = online(weights, 6)
    for last in range(6):
        seen = {pair: w for pair, w in weights.items() if pair[1] <= last}
        here = value(seen, placed)
        others = [[*placed[:last], group] for group in {*placed[:last], -1}]
        assert here >= max(value(seen, other) for other in others) - 1e-9


def test_random_weights_cost_little_against_the_best_clustering() -> None:
    rng = np.random.default_rng(0)
    found = best = 0.0
    for _ in range(100):
        weights = dict(zip(all_pairs(6), rng.uniform(-1.0, 1.0, 15).tolist(), strict=True))
        found += value(weights, online(weights, 6))
        best += max(value(weights, c) for c in clusterings(6))
    assert 0.75 * best < found <= best


def test_a_configuration_out_of_range_is_refused() -> None:
    import msgspec

    for wrong in ({"horizon_s": 0.0}, {"agreement": 1.5}, {"horizon": 3.0}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, GroupingConfig)
