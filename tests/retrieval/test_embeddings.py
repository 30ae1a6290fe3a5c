"""Features and labels that are refused before ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reidkit.errors import DataError
from reidkit.retrieval import Embeddings, compute_metrics


def ones(n=4, dim=3):
    return np.ones((n, dim), dtype=np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_the_first_index_is_given(value):
    features = ones()
    features[1, 2] = features[3, 0] = value
    with pytest.raises(DataError, match=r"q.h5: 2 of 4 vectors contain NaN or infinity.*index 1"):
        Embeddings(features, np.zeros(4, int), np.zeros(4, int), name="q.h5")


@pytest.mark.parametrize("length", [1e-42, 1e-38, 1e-19])
def test_vectors_too_short_to_be_normalised_are_refused_by_row(length):
    features = ones()
    features[3] *= np.float32(length)
    with pytest.raises(DataError, match=r"1 of 4 vectors are shorter than 1e-18, .* index 3"):
        Embeddings(features, np.zeros(4, int), np.zeros(4, int))


def test_zero_vectors_are_counted_and_the_first_index_is_given():
    features = ones()
    features[2] = 0
    with pytest.raises(DataError, match=r"1 of 4 vectors are zero, the first at index 2"):
        Embeddings(features, np.zeros(4, int), np.zeros(4, int))


def test_shapes_that_disagree_are_refused():
    with pytest.raises(DataError, match=r"pids have shape \[3\], expected \[4\]"):
        Embeddings(ones(), np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(DataError, match=r"expected \[N, D\]"):
        Embeddings(np.zeros(4, np.float32), np.zeros(4, int), np.zeros(4, int))
    with pytest.raises(DataError, match="at least one vector"):
        Embeddings(ones(0), np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(DataError, match="camids are float64, expected integers"):
        Embeddings(ones(), np.zeros(4, int), np.zeros(4))
    with pytest.raises(DataError, match="1 roles are unknown, the first at index 1"):
        Embeddings(ones(2), [1, 2], [1, 2], ["person", "ghost"])


def test_roles_are_names_bytes_or_codes():
    expected = [0, 1, 2]
    for roles in (["person", "junk", "distractor"], [b"person", b"junk", b"distractor"], expected):
        assert Embeddings(ones(3), [1, 2, 3], [1, 1, 1], roles).roles.tolist() == expected
    assert Embeddings(ones(3), [1, 2, 3], [1, 1, 1]).roles.tolist() == [0, 0, 0]


def test_tensors_are_not_copied():
    features = torch.ones(3, 2, requires_grad=True)
    embeddings = Embeddings(features, torch.tensor([1, 2, 3]), torch.tensor([0, 0, 0]))
    assert embeddings.features.dtype == np.float32
    assert np.shares_memory(embeddings.features, features.detach().numpy())
    assert embeddings.norms == pytest.approx(np.sqrt([2, 2, 2]))


def test_junk_among_queries_is_refused():
    query = Embeddings(ones(2), [1, 2], [0, 0], ["person", "junk"])
    with pytest.raises(DataError, match="1 queries have the role junk, the first at index 1"):
        compute_metrics(query, Embeddings(ones(2), [1, 2], [0, 0]))
