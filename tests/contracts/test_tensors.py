"""Tensor specifications: what fits, and the words that say why something does not."""

from __future__ import annotations

import numpy as np
import pytest

from limpet.contracts.errors import TensorError
from limpet.contracts.tensors import (
    DTYPES,
    Array,
    Tensors,
    TensorSpec,
    check_tensors,
    little_endian_contiguous,
)

WINDOW = TensorSpec(name="window", dtype="float32", shape=["batch", 8, 2])
STATE = TensorSpec(name="state", dtype="int64", shape=["batch"])


def window(batch: int) -> Array:
    return np.zeros((batch, 8, 2), np.float32)


def test_tensors_that_fit_give_the_size_of_each_named_axis() -> None:
    tensors = {"window": window(3), "state": np.zeros(3, np.int64)}
    assert check_tensors([WINDOW, STATE], tensors, "request") == {"batch": 3}


def test_a_model_without_inputs_takes_no_tensors() -> None:
    assert check_tensors([], {}, "request") == {}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "request: tensor 'window' is missing, found none"),
        ({"x": window(1)}, r"request: tensor 'window' is missing, found \['x'\]"),
        (
            {"window": np.zeros((3, 8, 2))},
            "request: tensor 'window' is float64, wanted float32",
        ),
        (
            {"window": np.zeros((3, 7, 2), np.float32)},
            r"request: tensor 'window' has shape \[3, 7, 2\], wanted \[batch, 8, 2\]",
        ),
        (
            {"window": np.zeros((8, 2), np.float32)},
            r"request: tensor 'window' has shape \[8, 2\], wanted \[batch, 8, 2\]",
        ),
        (
            {"window": window(3), "state": np.zeros(4, np.int64)},
            r"request: tensor 'state' has shape \[4\], wanted \[batch\] with {'batch': 3}",
        ),
        (
            {"window": window(1), "state": np.zeros(1, np.int64), "extra": window(1)},
            "request: unknown tensor 'extra'",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_what_was_wanted(
    tensors: Tensors, message: str
) -> None:
    with pytest.raises(TensorError, match=f"^{message}"):
        check_tensors([WINDOW, STATE], tensors, "request")


def test_a_missing_tensor_lists_what_the_model_takes() -> None:
    with pytest.raises(TensorError) as caught:
        check_tensors([WINDOW, STATE], {}, "request")
    assert caught.value.hint == "wanted: window float32 [batch, 8, 2]; state int64 [batch]"


def test_an_unknown_element_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TensorError, match="dtype 'object' is not one of float64, float32"):
        TensorSpec(name="x", dtype="object", shape=[1])


def test_an_axis_of_no_size_is_refused() -> None:
    with pytest.raises(TensorError, match="axis 1 has size 0, wanted >= 1"):
        TensorSpec(name="x", dtype="float32", shape=["batch", 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_is_one_that_numpy_knows_by_that_name(dtype: str) -> None:
    assert np.dtype(dtype).name == dtype


def test_memory_for_the_wire_is_little_endian_and_contiguous() -> None:
    big = np.arange(6, dtype=">f4").reshape(2, 3)[:, ::-1]
    little = little_endian_contiguous(big)
    assert little.dtype == np.dtype("<f4")
    assert little.flags.c_contiguous
    np.testing.assert_array_equal(little, big)


def test_memory_that_fits_the_wire_is_not_copied() -> None:
    array = np.zeros((2, 3), "<f4")
    assert np.shares_memory(little_endian_contiguous(array), array)
