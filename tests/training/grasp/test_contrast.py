"""Laws of the two contrastive losses and of the pairs they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from limpet.training.grasp.contrast import contrast, matches, non_matches, pull, push


def test_pull_is_zero_for_equal_features_and_the_mean_squared_distance_otherwise() -> None:
    features = functional.normalize(torch.randn(5, 8, generator=torch.manual_seed(0)), dim=1)
    assert pull(features, features).item() == 0.0
    assert pull(features, -features).item() == pytest.approx(4.0)


@pytest.mark.parametrize("angle_deg", [30.0, 60.0, 90.0, 180.0])
def test_the_margin_is_one_minus_the_cosine_of_the_angle(angle_deg: float) -> None:
    cosine = torch.tensor([np.cos(np.deg2rad(angle_deg))], dtype=torch.float32)
    margin = 1.0 - float(cosine)
    one = torch.tensor([[1.0, 0.0]])

    def apart(distance: float) -> torch.Tensor:
        turn = 2.0 * np.arcsin(distance / 2.0)
        return torch.tensor([[np.cos(turn), np.sin(turn)]], dtype=torch.float32)

    assert push(one, apart(min(margin + 1e-3, 2.0)), cosine).item() == pytest.approx(0.0, abs=1e-9)
    assert push(one, one, cosine).item() == pytest.approx(margin**2, rel=1e-4)
    inside = push(one, apart(0.5 * margin), cosine).item()
    assert inside == pytest.approx((0.5 * margin) ** 2, rel=1e-3)


def test_coinciding_features_have_a_finite_gradient() -> None:
    one = torch.tensor([[1.0, 0.0]], requires_grad=True)
    push(one, one.detach(), torch.tensor([0.0])).backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()


def test_without_pairs_both_losses_are_zero() -> None:
    embedded = torch.randn(4, 3)
    none = np.zeros(0, np.intp)
    assert contrast(embedded, none, none).item() == 0.0
    assert contrast(embedded, none, none, np.zeros(0, np.float32)).item() == 0.0


def test_matches_are_mutual_near_and_on_one_object() -> None:
    here = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]], np.float32)
    there = np.array([[0.002, 0, 0], [0.11, 0, 0], [0.2, 0, 0], [0.3, 0, 0]], np.float32)
    owner = np.array([0, 0, 1, -1, 0, 0, 2, -1])
    first, second = matches(np.concatenate([here, there]), owner, 2, within_m=0.006)
    # The second is a centimetre off, the third on another object, the fourth on none.
    assert first.tolist() == [0]
    assert second.tolist() == [4]


def test_one_view_has_no_matches() -> None:
    first, second = matches(np.zeros((4, 3), np.float32), np.zeros(4, np.intp), 1, 0.01)
    assert len(first) == len(second) == 0


def test_non_matches_share_an_object_and_differ_in_approach() -> None:
    rng = np.random.default_rng(0)
    owner = rng.integers(-1, 3, 200)
    approach = rng.normal(size=(200, 3)).astype(np.float32)
    approach /= np.linalg.norm(approach, axis=1, keepdims=True)
    first, second, cosine = non_matches(owner, approach, 30.0, 500, rng)
    assert len(first) > 200
    assert (owner[first] == owner[second]).all()
    assert (owner[first] >= 0).all()
    np.testing.assert_allclose(cosine, (approach[first] * approach[second]).sum(1), rtol=1e-5)
    assert cosine.max() <= np.cos(np.deg2rad(30.0))


def test_without_objects_there_is_no_non_match() -> None:
    rng = np.random.default_rng(0)
    first, _, _ = non_matches(np.full(5, -1), np.zeros((5, 3), np.float32), 30.0, 50, rng)
    assert len(first) == 0
