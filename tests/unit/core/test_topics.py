from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.topics import LEAST_GROUP, label_likeness, most_typical, novel_groups


def near(rng, middle, n, spread=0.4):
    rows = middle + spread * rng.standard_normal((n, len(middle))) / np.sqrt(len(middle))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


@pytest.fixture
def middles(rng):
    return np.linalg.qr(rng.standard_normal((32, 32)))[0]


def test_alike_novel_texts_are_a_group_and_others_are_not(rng, middles):
    familiar = near(rng, middles[0], 200)
    odd = near(rng, np.zeros(32), 12, spread=1.0)  # of all kinds
    first, second = near(rng, middles[1], 20), near(rng, middles[2], 12)
    vectors = np.concatenate([familiar, first, odd, second])
    novelty = np.repeat([0.1, 0.9, 0.8, 0.9], [200, 20, 12, 12])
    groups = novel_groups(vectors, novelty, 0.6)
    assert [group.tolist() for group in groups] == [[*range(200, 220)], [*range(232, 244)]]


def test_the_order_of_the_texts_changes_no_group(rng, middles):
    """So no group knows which sample a text is from."""
    vectors = np.concatenate([near(rng, middles[i], 15) for i in range(8)])
    novelty = rng.random(120)
    order = rng.permutation(120)
    plain = {frozenset(g.tolist()) for g in novel_groups(vectors, novelty, 0.5)}
    mixed = novel_groups(vectors[order], novelty[order], 0.5)
    assert {frozenset(order[g].tolist()) for g in mixed} == plain


def test_few_texts_have_no_group(rng, middles):
    vectors = near(rng, middles[0], 5 * (LEAST_GROUP - 1))
    assert novel_groups(vectors, np.ones(len(vectors)), 0.5) == []


def test_the_cut_lies_between_any_texts_and_those_of_a_label(rng, middles):
    vectors = np.concatenate([near(rng, middles[i], 10, spread=0.1) for i in range(4)])
    labels = np.repeat(np.arange(4), 10)
    # Of a label nearly 1; over all pairs 9 of 39 are of a label, the others nearly 0.
    assert label_likeness(vectors, labels) == pytest.approx(0.25 * 9 / 39 + 0.75, abs=0.05)
    # Without two texts of a label, all that there is is the likeness of any two.
    assert label_likeness(vectors[[0, 10]], np.array([0, 1])) == pytest.approx(0, abs=0.1)


def test_the_most_typical_lies_in_the_middle(middles):
    rows = np.stack([middles[0], middles[0] + 0.3 * middles[1], middles[0] - 0.3 * middles[1]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert most_typical(rows.astype(np.float32), 2)[0] == 0
