"""What features and moments tell of one another: relations and whitening.

Dimension legend: b streams, t frames, f features, m rows, d dimensions of a view.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from limpet.training.anomaly.model import Bank
from limpet.training.anomaly.moments import Whitening
from limpet.training.anomaly.relations import (
    fit_relations,
    fit_whitening,
    learn_relations,
    shrunk_covariance,
)
from tests.training.anomaly.streams import (
    FEATURES,
    coupled,
    scorer,
    stretch,
)


def correlated(m: int, f: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows of 2f dimensions, of which each second half follows the first, and all follow two."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((m, 2)) @ rng.standard_normal((2, 2 * f))
    own = rng.standard_normal((m, f))
    noise = 0.3 * rng.standard_normal((m, 2 * f))
    return (common + np.concatenate([own, 0.5 * own], 1) + noise + 3.0).astype(np.float32)


def whitening_of(rows: NDArray[np.float32]) -> Whitening:
    whiten = Whitening(rows.shape[1])
    mean, estimate, matrix = fit_whitening(rows, np.ones_like(rows))
    whiten.mean.copy_(torch.from_numpy(mean))
    whiten.estimate.copy_(torch.from_numpy(estimate))
    whiten.matrix.copy_(torch.from_numpy(matrix))
    return whiten


def test_whitened_normal_frames_are_uncorrelated_and_of_unit_variance() -> None:
    rows = correlated(4000, 3)
    white = whitening_of(rows)(torch.from_numpy(rows), torch.ones(4000, 6)).double().numpy()
    # But for directions that hardly vary: of those it is less.
    variances = np.linalg.eigvalsh(np.cov(white.T))
    assert variances[-1] == pytest.approx(1.0, abs=0.02)
    assert np.median(variances) == pytest.approx(1.0, abs=0.02)
    assert np.abs(white.mean(0)).max() < 1e-3


@pytest.mark.parametrize("dead", [[0], [2], [0, 1]])
def test_a_dead_sensor_is_estimated_from_the_others_as_least_squares_would(dead: list[int]) -> None:
    rows = correlated(4000, 4)
    d = rows.shape[1]
    whiten, gone = whitening_of(rows), [*dead, *(j + d // 2 for j in dead)]
    measured = torch.ones(4000, d)
    measured[:, gone] = 0.0
    found = whiten(torch.from_numpy(rows), measured).double().numpy()
    x = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    left = [j for j in range(d) if j not in gone]
    x[:, gone] = x[:, left] @ np.linalg.lstsq(x[:, left], x[:, gone], rcond=None)[0]
    wanted = x @ whiten.matrix.double().numpy()
    # Taken for their means, what is left would seem to break a correlation.
    x[:, gone] = 0.0
    naive = x @ whiten.matrix.double().numpy()
    off, naively_off = (np.abs(y - wanted).mean() for y in (found, naive))
    # One dead sensor exactly; of two, each is estimated with what was estimated of the other.
    assert off < (0.02 if len(dead) == 1 else 0.6) * naively_off


def test_the_covariance_is_shrunk_as_scikit_learn_shrinks_it() -> None:
    from sklearn.covariance import ledoit_wolf

    for m, d in ((20, 8), (300, 16), (5000, 4), (10, 1)):
        rows = correlated(m, max(1, d // 2))[:, :d].astype(np.float64)
        rows -= rows.mean(0)
        wanted = ledoit_wolf(rows, assume_centered=True)[0]
        np.testing.assert_allclose(shrunk_covariance(rows), wanted, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_absent_dimensions_do_not_matter_whatever_stands_there() -> None:
    made = Bank(25, 6, 3, whitens=True)
    made.whitening = whitening_of(correlated(500, 3))
    view = torch.from_numpy(correlated(5, 3, 1))[None]
    measured = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0]).expand(1, 5, 6)
    torch.testing.assert_close(
        made(view, measured), made(view + 100.0 * (1.0 - measured), measured)
    )


@pytest.mark.parametrize("dead", [None, 0, 2])
@torch.no_grad()
def test_relations_leave_what_least_squares_leaves_of_a_feature_given_the_others(
    dead: int | None,
) -> None:
    model, each = scorer(1), coupled(20_000)
    learn_relations(model, [each])
    made, view = model.relations, each.samples.astype(np.float64)
    measured = torch.ones(1, len(view), FEATURES)
    filled = view - view.mean(0)
    if dead is not None:
        measured[..., dead] = 0.0
        others = np.delete(filled, dead, 1)
        filled[:, dead] = others @ np.linalg.lstsq(others, filled[:, dead], rcond=None)[0]
    found = made(torch.from_numpy(view).float()[None] * measured, measured)[0].numpy()
    for feature in range(FEATURES):
        others = np.delete(view - view.mean(0), feature, 1)
        weights = np.linalg.lstsq(others, view[:, feature] - view[:, feature].mean(), rcond=None)[0]
        spread = (view[:, feature] - view[:, feature].mean() - others @ weights).std()
        wanted = (filled[:, feature] - np.delete(filled, feature, 1) @ weights) / spread
        if feature == dead:
            wanted = np.zeros(len(view))
        np.testing.assert_allclose(found[:, feature], wanted, rtol=0.03, atol=0.03)


def test_single_constant_and_discrete_features_pass_the_relations_unchanged() -> None:
    view = stretch(300).samples
    view[:, 1], view[:, 2] = 0.5, view[:, 0] > 0
    mean, estimate, matrix = fit_relations(view, np.ones_like(view))
    assert not mean.any()
    assert not estimate.any()
    np.testing.assert_array_equal(matrix, np.eye(FEATURES))


@torch.no_grad()
def test_the_encoder_learns_on_what_it_is_given_on_a_stream() -> None:
    model, each = scorer(1), coupled(200, seed=4, held_out=50)
    (apart,) = learn_relations(model, [each])
    seen: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    samples, present = torch.from_numpy(each.samples)[None], torch.from_numpy(each.present)[None]
    model(samples, present, torch.zeros(1, model.state_size))
    hook.remove()
    torch.testing.assert_close(seen[0][0], torch.from_numpy(apart.samples))
