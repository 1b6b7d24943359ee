"""Which expert takes a label, and whom a change concerns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from red_ray.labels.draft import Draft
from red_ray.labels.placing import MOST, balanced, concerned, near_labels, receiving


@pytest.fixture
def draft(full):
    """Three experts of 5, 4 and 3 labels."""
    subsets = ((0, 1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11))
    return dataclasses.replace(Draft.of(full.model), subsets=subsets)


@pytest.fixture
def points():
    """Labels on a circle, in their order."""
    angles = np.linspace(0, np.pi, 12)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_nearest_labels_come_first_and_a_label_is_not_its_own_neighbour(points):
    assert near_labels(points, 0) == [1, 2, 3]
    assert sorted(near_labels(points, 5, 2)) == [4, 6]
    assert near_labels(points[:2], 1) == [0]


@pytest.mark.parametrize(
    ("near", "size", "expected"),
    [
        ([0, 5, 9], 8, 0),  # the nearest has room
        ([0, 5, 9], 5, 1),  # it is full, and the next one has room
        ([0, 5, 9], 4, 2),
        ([0, 5, 6], 4, 0),  # none of the near ones has any: the nearest grows
    ],
)
def test_a_full_expert_takes_no_label_while_a_near_one_has_room(draft, near, size, expected):
    assert receiving(draft, near, size) == expected


def test_the_changed_experts_and_those_of_near_labels_are_concerned(draft, points):
    changed = dataclasses.replace(draft, changed=frozenset({0}))
    assert concerned(changed, points, [0]) == (0,)
    assert concerned(changed, points, [4]) == (0, 1)
    assert concerned(changed, points, [0, 8]) == (0, 1, 2)


def test_they_are_four_at_most_but_for_those_that_change(full, points):
    alone = tuple((label,) for label in range(12))
    draft = dataclasses.replace(Draft.of(full.model), subsets=alone, changed=frozenset({0}))
    assert concerned(draft, points, [0, 11]) == (0, 1, 2, 3)
    many = dataclasses.replace(draft, changed=frozenset(range(MOST + 2)))
    assert len(concerned(many, points, [11])) == MOST + 2


def test_an_expert_of_twice_its_size_is_divided_into_near_labels(draft, points):
    changed = dataclasses.replace(draft, changed=frozenset({1}))
    halves = balanced(changed, points, 2, 42)
    assert len(halves.subsets) == 4
    assert {frozenset(halves.subsets[1]), frozenset(halves.subsets[3])} == {
        frozenset({5, 6}),
        frozenset({7, 8}),
    }
    assert halves.changed == {1, 3}
    assert halves.origins == (0, 1, 2, -1)


def test_a_lone_label_stays_where_no_near_expert_has_room(draft, points):
    lone = dataclasses.replace(
        draft, subsets=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10), (11,)), changed=frozenset({2})
    )
    assert balanced(lone, points, 6, 42).subsets == lone.subsets
    joined = balanced(lone, points, 7, 42)
    assert joined.subsets == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10, 11))
    assert joined.changed == {1}


def test_of_two_lone_labels_that_are_near_each_other_one_moves(draft, points):
    """The other one is alone no more then, and stays, though a third expert has room, too."""
    subsets = (tuple(range(10)), (10,), (11,))
    lone = dataclasses.replace(draft, subsets=subsets, changed=frozenset({1, 2}))
    together = np.vstack([points[:10], points[11:], points[11:]])
    assert balanced(lone, together, 11, 42).subsets == (tuple(range(10)), (10, 11))
