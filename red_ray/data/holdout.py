"""Test rows for who has one labelled file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from red_ray.data.inputs import Inputs, TestRows
from red_ray.data.prepare import check_trainable
from red_ray.data.splits import assert_disjoint, stratified_split
from red_ray.errors import DataError


def hold_out(inputs: Inputs, fraction: float, seed: int) -> tuple[Inputs, TestRows]:
    """Hold a share of every label's training rows back for the scorecard.

    Args:
        inputs: the rows of a run.
        fraction: share to hold back, between 0 and 1, both excluded.
        seed: decides which rows.

    Raises:
        ConfigError: `fraction` is out of range.
        DataError: too few rows are left to train on.
    """
    if not len(inputs.train):
        raise DataError("--test-fraction holds training rows back, and there are none: give --test")
    rng = np.random.default_rng([seed, 4])
    rest, held = stratified_split(inputs.train.labels, fraction, rng)
    train, test = inputs.train.take(rest), inputs.train.take(held)
    check_trainable(train)
    assert_disjoint({"train": train.texts, "pool": inputs.pool, "test": test.texts})
    return replace(inputs, train=train), TestRows(test, (), 0, ())
