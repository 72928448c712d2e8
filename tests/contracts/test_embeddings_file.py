"""Embedding files: the same numbers in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from limpet.contracts.embeddings_file import write_embeddings
from limpet.contracts.errors import UsageError

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_every_format_holds_the_same_float32(tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz", "a.csv"):
        write_embeddings(tmp_path / name, ROWS)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ROWS)
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["embedding"], ROWS)
        assert archive["embedding"].dtype == np.float32
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    assert head == "embedding_0,embedding_1,embedding_2"
    found = np.array([line.split(",") for line in lines], np.float32)
    np.testing.assert_array_equal(found, ROWS)


def test_another_suffix_or_no_folder_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.txt is no suffix of an embedding file"):
        write_embeddings(tmp_path / "a.txt", ROWS)
    with pytest.raises(UsageError, match="no folder"):
        write_embeddings(tmp_path / "none" / "a.npy", ROWS)
    assert not [*tmp_path.iterdir()]
