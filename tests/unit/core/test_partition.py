"""Partition: labels into subsets, and when UMAP means anything."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.partition import (
    enough_labels_for_umap,
    label_embeddings,
    partition,
    unit_rows,
)

STRATEGIES = ("similar", "dissimilar", "random")


def cut(embeddings, subset_size=4, strategy="similar", seed=0):
    rng = np.random.default_rng(seed)
    return partition(embeddings, subset_size=subset_size, strategy=strategy, rng=rng)


def clustered(n_clusters=4, size=4, dim=16):
    """Labels that lie in clusters: label i belongs to cluster i % n_clusters."""
    rng = np.random.default_rng(3)
    centres = np.eye(n_clusters, dim)[np.arange(n_clusters * size) % n_clusters]
    noise = 0.05 * rng.standard_normal((n_clusters * size, dim))
    return unit_rows((centres + noise).astype(np.float32))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_labels", [1, 2, 4, 5, 9, 23])
def test_every_label_stands_in_exactly_one_subset_of_at_most_the_size(strategy, n_labels):
    embeddings = clustered(5, 5)[:n_labels]
    subsets = cut(embeddings, subset_size=4, strategy=strategy)
    assert sorted(label for subset in subsets for label in subset) == list(range(n_labels))
    assert max(map(len, subsets)) <= 4
    assert len(subsets) == -(-n_labels // 4)
    assert all(list(subset) == sorted(subset) for subset in subsets)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_labels", [2, 9, 17, 25])
def test_no_label_is_alone(strategy, n_labels):
    """With 9 labels and 8 a subset, a plain fill would leave the ninth without a rival."""
    embeddings = clustered(5, 5)[:n_labels]
    assert min(map(len, cut(embeddings, subset_size=8, strategy=strategy))) >= 2


def test_the_only_label_is_a_subset():
    assert cut(clustered()[:1]) == ((0,),)


def test_similar_puts_near_labels_together():
    expected = {tuple(range(cluster, 16, 4)) for cluster in range(4)}
    assert set(cut(clustered(), strategy="similar")) == expected


def test_dissimilar_puts_near_labels_apart():
    for subset in cut(clustered(), strategy="dissimilar"):
        assert {label % 4 for label in subset} == {0, 1, 2, 3}


def test_random_follows_the_seed():
    """Defect 22: the same seed cuts the same way."""
    embeddings = clustered()
    assert cut(embeddings, strategy="random", seed=1) == cut(embeddings, strategy="random", seed=1)
    assert cut(embeddings, strategy="random", seed=1) != cut(embeddings, strategy="random", seed=2)


@pytest.mark.parametrize("strategy", ["similar", "dissimilar"])
def test_the_seed_breaks_only_ties(strategy):
    """Defect 22: where no two similarities are equal the seed changes no subset."""
    points = unit_rows(np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32))
    cuts = {frozenset(cut(points, strategy=strategy, seed=seed)) for seed in range(5)}
    assert len(cuts) == 1


@pytest.mark.parametrize(("n_labels", "enough"), [(127, False), (128, True)])
def test_umap_takes_four_labels_a_dimension(n_labels, enough):
    assert enough_labels_for_umap(n_labels, 32) is enough


def test_a_label_lies_between_its_examples_and_its_name():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=np.float32)
    names = np.array([[0, 0, 1], [0, 0, 1]], dtype=np.float32)
    points = label_embeddings(vectors, np.array([0, 0, 1]), names)
    half = 0.75 * np.sqrt(0.5)
    expected = np.array([[half, half, 0.25], [0, 0.75, 0.25]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(points, expected, rtol=1e-6)


def test_many_examples_do_not_outweigh_the_name():
    names = np.array([[0, 1]], dtype=np.float32)
    once = label_embeddings(np.array([[1, 0]], np.float32), np.array([0]), names)
    often = label_embeddings(np.tile([[1, 0]], (9, 1)).astype(np.float32), np.zeros(9, int), names)
    np.testing.assert_allclose(once, often, rtol=1e-6)


def test_a_row_of_zeros_stays_zero():
    assert unit_rows(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]


def every_pair_anew(embeddings, sizes, sign):
    """The greedy rule as it is told, each subset looking at every pair that is left."""
    similarity, left, groups = embeddings @ embeddings.T, list(range(len(embeddings))), []
    for size in sizes:
        best = {i: max((sign * similarity[i, j] for j in left if j != i), default=0) for i in left}
        group = [max(left, key=lambda i: (best[i], -i))]
        while len(group) < size:
            rest = [i for i in left if i not in group]
            group.append(max(rest, key=lambda i: (sign * similarity[group, i].sum(), -i)))
        left = [i for i in left if i not in group]
        groups.append(tuple(sorted(group)))
    return groups


@pytest.mark.parametrize(("strategy", "sign"), [("similar", 1), ("dissimilar", -1)])
def test_partners_that_are_remembered_cut_as_all_pairs_do(strategy, sign):
    points = unit_rows(np.random.default_rng(4).standard_normal((43, 6)).astype(np.float32))
    sizes = [len(subset) for subset in cut(points, strategy=strategy)]
    assert list(cut(points, strategy=strategy)) == every_pair_anew(points, sizes, sign)
