"""What a change did to each label: what is called worse, and what is known of a new label."""

from __future__ import annotations

import pytest

from red_ray import labels
from red_ray.labels import LabelEffect
from tests.unit.labels.conftest import HELD, halves, rows_of
from tests.unit.labels.test_promises import known_rows


@pytest.mark.parametrize(
    ("n_lost", "n_gained", "is_worse", "is_beyond_chance"),
    [
        (0, 0, False, False),
        (1, 1, False, False),
        (1, 0, True, False),  # one text of 15: a coin does that every other time
        (4, 0, True, False),
        (5, 0, True, True),
        (6, 1, True, False),
        (7, 1, True, True),
    ],
)
def test_worse_is_what_a_coin_would_seldom_do(n_lost, n_gained, is_worse, is_beyond_chance):
    after = 0.9 - (n_lost - n_gained) / 15
    found = LabelEffect("x", 15, before=0.9, after=after, n_lost=n_lost, n_gained=n_gained)
    assert (found.is_regression, found.is_beyond_chance) == (is_worse, is_beyond_chance)


def test_a_new_label_without_calibration_rows_is_judged_by_its_own_examples(
    without, corpus, encoder
):
    texts = rows_of(corpus, HELD)
    about = {"known": known_rows(corpus, HELD), "encoder": encoder}
    effect = labels.add(without.model, without.crossfit, HELD, texts, **about).effect
    assert effect.source == "rows"
    assert HELD not in {one.label for one in effect.labels}
    (own,) = effect.own
    alone = labels.add(without.model, without.crossfit, HELD, texts, encoder=encoder).effect
    assert own == next(one for one in alone.labels if one.label == HELD)
    assert (own.n_rows, own.before, effect.unknown, alone.own) == (5, None, (), ())


def test_of_a_label_that_a_judge_filled_nothing_is_known(without, corpus, encoder):
    texts = rows_of(corpus, HELD)
    about = {"judged": True, "encoder": encoder}
    effect = labels.add(without.model, without.crossfit, HELD, texts, **about).effect
    assert (effect.own, effect.unknown) == ((), (HELD,))


def test_both_parts_of_a_split_are_new_though_one_keeps_the_name(full, corpus, encoder):
    name = "family1_topic04"
    parts, about = halves(corpus, name, name, "other"), {"known": known_rows(corpus)}
    done = labels.split(
        full.model, full.crossfit, name, (name, "other"), parts, **about, encoder=encoder
    )
    assert {one.label for one in done.effect.own} == {name, "other"}


def test_the_before_of_a_merged_label_is_that_of_all_of_it(full, corpus, encoder):
    names = ["family0_topic00", "family2_topic08"]
    effect = labels.merge(full.model, full.crossfit, names, "both", encoder=encoder).effect
    both = next(one for one in effect.labels if one.label == "both")
    right = dict(zip(full.model.example_texts, full.model.calibration.right, strict=True))
    was = [right[text] for name in names for text in rows_of(corpus, name)]
    assert both.before == pytest.approx(sum(was) / len(was))
    assert both.after * 10 == pytest.approx(sum(was) + both.n_gained - both.n_lost)
