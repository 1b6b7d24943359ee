"""What a change does to thresholds, and how it is measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from red_ray import labels
from red_ray.bundle import load_bundle, save_bundle
from red_ray.calibration import calibration_rows, with_goal
from red_ray.config import Goal
from red_ray.core.text import text_key
from red_ray.data.inputs import KnownRows
from red_ray.data.prepare import LabelledRows
from tests.unit.labels.conftest import HELD, halves, rows_of

HALF = Goal(escalate_at_most=0.5)


def known_rows(corpus, *but):
    pairs = zip(corpus.test, corpus.test_labels, strict=True)
    rows = [(text, label) for text, label in pairs if label not in but]
    texts, names = zip(*rows, strict=True)
    return KnownRows(LabelledRows(texts, names), ("sing a song", "dance a jig"))


def with_half(model, known, encoder, goal=HALF):
    return with_goal(model, goal, 0.9, known, lambda: encoder)


def test_without_a_goal_there_is_none_afterwards(without, corpus, encoder):
    change = labels.add(
        without.model, without.crossfit, HELD, rows_of(corpus, HELD), encoder=encoder
    )
    assert change.model.promise is None


def test_cross_fitted_thresholds_are_derived_again(without, corpus, encoder):
    model = with_half(without.model, None, encoder)
    change = labels.add(model, without.crossfit, HELD, rows_of(corpus, HELD), encoder=encoder)
    promise = change.model.promise
    assert (promise.source, promise.stale, promise.n_rows) == ("cross_fitted", "", 60)
    assert change.model.config.router.goal == HALF


def test_calibration_rows_of_the_label_cover_it(without, corpus, encoder):
    known = known_rows(corpus)
    model = with_half(without.model, known_rows(corpus, HELD), encoder)
    texts = rows_of(corpus, HELD)
    change = labels.add(model, without.crossfit, HELD, texts, known=known, encoder=encoder)
    promise = change.model.promise
    assert (promise.source, promise.stale, promise.n_rows) == ("rows", "", 48)
    assert promise.data_hash == known.data_hash
    assert change.effect.source == "rows"


def test_a_label_without_calibration_rows_makes_the_promise_stale(
    without, corpus, encoder, tmp_path
):
    known = known_rows(corpus, HELD)
    model = with_half(without.model, known, encoder)
    texts = rows_of(corpus, HELD)
    change = labels.add(model, without.crossfit, HELD, texts, known=known, encoder=encoder)
    promise = change.model.promise
    assert promise.stale == f"no calibration row has the label {HELD!r}"
    assert promise.uncovered == (HELD,)
    assert len(change.notes) == 1
    assert "guarantee is stale: no calibration row" in change.notes[0]
    # It stands in the manifest, and the next change does not forget it.
    save_bundle(change.model, tmp_path / "bundle", {})
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.promise == promise
    renamed = labels.rename(loaded, change.crossfit, HELD, "zebra", known=known)
    assert renamed.model.promise.uncovered == ("zebra",)
    more = labels.retire(
        loaded, change.crossfit, "family0_topic00", known=known, encoder=encoder
    ).model
    assert more.promise.uncovered == (HELD,)
    gone = labels.retire(loaded, change.crossfit, HELD, known=known, encoder=encoder).model
    assert (gone.promise.stale, gone.promise.uncovered) == ("", ())


def test_too_few_rows_keep_the_thresholds_of_before_and_say_so(full, corpus, encoder):
    known = known_rows(corpus)
    model = with_half(full.model, known, encoder)
    few = KnownRows(known.rows.take(range(3)), ())
    change = labels.retire(model, full.crossfit, "family2_topic11", known=few, encoder=encoder)
    promise = change.model.promise
    assert promise.thresholds == model.promise.thresholds
    assert "needs at least" in promise.stale
    assert any("stale" in note for note in change.notes)


def test_rows_that_are_gone_make_it_stale(full, corpus, encoder):
    model = with_half(full.model, known_rows(corpus), encoder)
    change = labels.retire(model, full.crossfit, "family2_topic11", encoder=encoder)
    assert "not in the run any more" in change.model.promise.stale


def test_labels_that_a_judge_filled_are_not_covered_by_an_estimate(without, corpus, encoder):
    model = with_half(without.model, None, encoder)
    texts = rows_of(corpus, HELD)
    change = labels.add(model, without.crossfit, HELD, texts, judged=True, encoder=encoder)
    assert change.model.promise.stale == f"no row that you labelled has the label {HELD!r}"
    # The labels of before are measured all the same.
    assert HELD not in {one.label for one in change.effect.labels}


def test_calibration_rows_follow_a_merge_and_a_retirement(full, corpus, encoder):
    known = known_rows(corpus)
    model = with_half(full.model, known, encoder)
    names = ["family0_topic00", "family2_topic08"]
    merged = labels.merge(model, full.crossfit, names, "both", known=known, encoder=encoder)
    assert (merged.model.promise.n_rows, merged.model.promise.stale) == (48, "")
    effect = {one.label: one for one in merged.effect.labels}
    # Before, each row by the name that it had then.
    seen = calibration_rows(model, known, encoder).right
    two = [at for at, label in enumerate(known.rows.labels) if label in names]
    both = effect["both"]
    assert (both.n_rows, both.is_altered) == (8, True)
    assert both.before == pytest.approx(np.mean(seen[two]))
    assert merged.effect.n_rows == 40
    name = "family1_topic04"
    retired = labels.retire(model, full.crossfit, name, known=known, encoder=encoder)
    assert (retired.model.promise.n_rows, retired.model.promise.n_out_of_scope) == (44, 2)
    as_none = labels.retire(
        model, full.crossfit, name, keep_as_none=True, known=known, encoder=encoder
    )
    promise = as_none.model.promise
    assert (promise.n_rows, promise.n_out_of_scope) == (44, 6)


def test_a_renamed_label_keeps_the_promise(full, corpus, encoder):
    known = known_rows(corpus)
    model = with_half(full.model, known, encoder)
    change = labels.rename(model, full.crossfit, "family1_topic04", "zebra", known=known)
    promise = change.model.promise
    assert promise.data_hash != model.promise.data_hash
    assert dataclasses.replace(promise, data_hash="") == dataclasses.replace(
        model.promise, data_hash=""
    )


def test_what_is_promised_on_are_the_rows_that_a_change_came_to(full, corpus, encoder):
    known, name = known_rows(corpus), "family1_topic04"
    model, kept = with_half(full.model, known, encoder), full.crossfit
    about, parts = {"known": known, "encoder": encoder}, halves(corpus, name, "one", "other")
    parts |= {text_key(text): "one" for text in known.rows.of(name)[:1]}
    split = labels.split(model, kept, name, ("one", "other"), parts, **about)
    changes = [
        labels.merge(model, kept, corpus.names[:2], "both", **about),
        labels.retire(model, kept, name, keep_as_none=True, **about),
        labels.rename(model, kept, name, "zebra", known=known),
        labels.refit(model, kept, [0], **about),
        split,
    ]
    assert len({one.known for one in changes}) == len(changes)
    assert all(one.model.promise.data_hash == one.known.data_hash for one in changes)
    assert len(split.known.rows) == len(known.rows) - 3
    assert labels.retire(full.model, kept, name, encoder=encoder).known is None


def test_the_effect_counts_the_same_rows_before_and_after(without, corpus, encoder):
    texts = rows_of(corpus, HELD)
    change = labels.add(without.model, without.crossfit, HELD, texts, encoder=encoder)
    effect = change.effect
    assert (effect.source, effect.n_rows) == ("cross_fitted", 55)
    assert effect.before == pytest.approx(np.mean(without.model.calibration.right))
    of_label = {one.label: one for one in effect.labels}
    assert (of_label[HELD].before, of_label[HELD].n_rows) == (None, 5)
    others = [one for one in effect.labels if one.label != HELD]
    lost = sum(one.n_lost - one.n_gained for one in others)
    assert effect.before - effect.after == pytest.approx(lost / 55)
    named = {one.label for one in effect.regressions}
    assert named == {one.label for one in others if one.after < one.before}
    assert (effect.n_lost, effect.n_gained) == (
        sum(one.n_lost for one in others),
        sum(one.n_gained for one in others),
    )


def test_a_regression_is_named(full, corpus, encoder):
    """Rows of one label given to another spoil the first."""
    pairs = [*zip(corpus.pool, (corpus.hidden[text] for text in corpus.pool), strict=True)]
    wrong = [text for text, label in pairs if label == "family0_topic00"]
    more = labels.Examples(tuple(wrong), ("family0_topic01",) * len(wrong))
    change = labels.refit(full.model, full.crossfit, [], examples=more, encoder=encoder)
    assert "family0_topic00" in {one.label for one in change.effect.regressions}
    spoilt = next(one for one in change.effect.labels if one.label == "family0_topic00")
    assert spoilt.n_lost > 0


def test_a_split_that_keeps_the_old_name_leaves_two_labels_uncovered(full, corpus, encoder):
    name = "family1_topic04"
    known = known_rows(corpus)
    model, parts = with_half(full.model, known, encoder), halves(corpus, name, name, "other")
    into, about = (name, "other"), {"known": known, "encoder": encoder}
    promise = labels.split(model, full.crossfit, name, into, parts, **about).model.promise
    assert promise.uncovered == (name, "other")
    assert promise.stale == f"no calibration row has the labels {name!r}, 'other'"
    # Without such rows the user's own count, and those that a judge divided are no longer his.
    model = with_half(full.model, None, encoder)
    done = labels.split(model, full.crossfit, name, into, parts, judged=True, encoder=encoder)
    assert done.model.promise.uncovered == (name, "other")


def test_a_label_that_never_had_a_calibration_row_is_no_reason(full, corpus, encoder):
    known = known_rows(corpus, HELD)
    model = with_half(full.model, known, encoder)
    about = {"known": known, "encoder": encoder}
    change = labels.retire(model, full.crossfit, "family0_topic00", **about)
    assert (change.model.promise.stale, change.model.promise.uncovered) == ("", ())
