from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks.peers.__main__ import order
from tests.benchmarks.peers.catalogue import ECHO, FRAMEWORK_ROWS, LANE, LIMPET, PEERS, SHAPES, Peer
from tests.benchmarks.peers.environments import pins
from tests.benchmarks.peers.visits import MODELS_MS

HERE = Path(__file__).parent


def test_every_row_that_a_target_names_is_measured_of_one_peer() -> None:
    rows = [row for peer in PEERS for row in peer.rows]
    assert sorted(rows) == sorted([LIMPET, LANE, *FRAMEWORK_ROWS, *SHAPES, ECHO])


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.module)
def test_a_peer_has_pins_a_licence_and_says_how_it_is_set_up(peer: Peer) -> None:
    assert all(re.fullmatch(r"\d+(\.\d+)+", number) for number in pins(peer).values())
    assert {"onnxruntime", "numpy"} <= set(pins(peer)) or not peer.packages
    assert peer.licence
    assert len(peer.why) > 50


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.module)
def test_a_peer_is_a_module_that_serves_with_its_settings_and_links(peer: Peer) -> None:
    """Read, not imported: its packages are in an environment of its own."""
    tree = ast.parse((HERE / f"{peer.module}.py").read_text(encoding="utf-8"))
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    assigned = {
        target.id
        for each in tree.body
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    assert "link" in functions or "link" in assigned
    read = {
        each.slice.value
        for each in ast.walk(functions["serve"])
        if isinstance(each, ast.Subscript)
        and isinstance(each.value, ast.Name)
        and each.value.id == "settings"
        and isinstance(each.slice, ast.Constant)
    }
    assert read == set(peer.settings)


def test_each_round_visits_every_peer_with_every_model_in_another_order() -> None:
    rounds = [order(turn) for turn in range(3)]
    assert len({tuple(map(str, each)) for each in rounds}) == len(rounds)
    for each in rounds:
        assert list(dict.fromkeys(model for model, _ in each)) == list(MODELS_MS)
        visits = Counter(peer.rows[0] if peer else None for _, peer in each)
        assert visits.pop(ECHO) == 1
        assert visits == {p.rows[0]: len(MODELS_MS) for p in PEERS if p.rows != (ECHO,)} | {
            None: len(MODELS_MS)
        }


def test_the_order_is_the_same_in_every_run() -> None:
    assert order(1) == order(1)
