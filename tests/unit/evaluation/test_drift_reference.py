"""What recent texts are held against says the same as they do where nothing has changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from red_ray import labels
from red_ray.calibration import with_goal
from red_ray.config import Goal
from red_ray.core.text import text_key
from red_ray.data.inputs import NO_ROWS, Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError
from red_ray.evaluation import drift
from red_ray.evaluation.drift import compare, find_drift
from red_ray.evaluation.drift_held import held_out
from red_ray.evaluation.drift_reference import Reference, given_reference, own_reference
from red_ray.evaluation.drift_report import ESCALATION, LABEL, NONE, NOVELTY, PROMISE, DriftSettings
from red_ray.evaluation.drift_rows import score_texts
from red_ray.snapshot import Snapshot
from red_ray.training import LocalFleet
from tests.unit.training.fakes import FakeEncoder, FakeValidator, make_corpus, train, truth

ENCODER = FakeEncoder()
GOAL = Goal(escalate_at_most=0.3)
TRIFLES = DriftSettings(level=0.05, min_ratio=1.0, min_change=0.0)


@pytest.fixture(scope="module")
def large():
    return make_corpus(pool_per_label=60, test_per_label=60)


@pytest.fixture(scope="module")
def looped(large):
    """A run whose judge was asked about a quarter of the pool, with a goal."""
    loop = {"max_iterations": 3, "samples_per_iteration": 60}
    job = large.job(loop=loop, judge={"top_k": 2})
    trained = asyncio.run(train(job, FakeValidator(truth(large))))
    model = with_goal(trained.model, GOAL, 0.9, None, lambda: ENCODER)
    return replace(trained, model=model)


@pytest.fixture(scope="module")
def model(large):
    trained = asyncio.run(train(replace(large, pool=()).job())).model
    return with_goal(trained, GOAL, 0.9, None, lambda: ENCODER)


@pytest.fixture(scope="module")
def population(model, large):
    """Texts that the model never saw, as it scores them; without embeddings, as no topic counts."""
    scored = score_texts(model, large.pool + large.test, ENCODER)
    return replace(scored, vectors=np.zeros_like(scored.vectors))


def snapshot(large, *, pool=(), train=None, judged=NO_ROWS, test=None, calibration=None):
    rows = LabelledRows(large.texts, large.labels) if train is None else train
    inputs = Inputs(rows, pool, HiddenLabels({}), judged=judged)
    return Snapshot(replace(inputs, calibration=calibration), test)


def with_samples(model, n):
    return replace(model, config=model.config.model_copy(update={"samples_per_class": n}))


@pytest.fixture(scope="module")
def added(large):
    """A label added with 40 texts of the pool that a judge found, and what is held against then."""
    name = large.labels[-1]
    pairs = [*zip(large.texts, large.labels, strict=True)]
    kept = [(text, label) for text, label in pairs if label != name]
    few = replace(large, texts=tuple(t for t, _ in kept), labels=tuple(n for _, n in kept), pool=())
    trained = asyncio.run(train(few.job()))
    found = [text for text in large.pool if large.hidden[text] == name][:40]
    change = labels.add(trained.model, trained.crossfit, name, found, judged=True, encoder=ENCODER)
    rows = LabelledRows(few.texts, few.labels)
    judged = LabelledRows(tuple(found), (name,) * len(found))
    after = snapshot(large, pool=large.pool, train=rows, judged=judged)
    reference = own_reference(
        change.model, after, ENCODER, crossfit=change.crossfit, is_changed=True
    )
    return change.model, reference, found


# --- what the loop learned ----------------------------------------------------------------------


def test_of_what_the_loop_learned_it_counts_what_models_said_that_had_not_seen_it(looped, large):
    model, crossfit = looped.model, looped.crossfit
    learned = {text: row for row, text in enumerate(model.example_texts) if row >= model.n_seed}
    assert len(learned) > 100
    found = own_reference(model, snapshot(large, pool=large.pool), ENCODER, crossfit=crossfit)
    assert len(found.rows) == len(large.pool) + len(large.texts)
    assert found.sure.sum() == len(large.pool)
    held = held_out(model, crossfit)
    at = [row for row, text in enumerate(found.rows.texts) if text in learned]
    rows = [learned[found.rows.texts[row]] for row in at]
    assert found.rows.novelty[at].tolist() == held.novelty[rows].tolist()
    assert found.rows.best[at].tolist() == held.best[rows].tolist()
    # Not what the model says of texts that it knows: of those it is surer, and more often right.
    known = score_texts(model, [found.rows.texts[row] for row in at], ENCODER)
    assert found.rows.risk[at].mean() > 1000 * known.risk.mean()
    assert known.best.tolist() == model.example_labels[rows].tolist()
    assert held.best[rows].tolist() != known.best.tolist()


def test_held_out_answers_of_the_users_rows_are_those_of_the_bundle(looped):
    """The router's evidence is put together as it was when the model was made."""
    model, seen = looped.model, looped.model.calibration
    held = held_out(model, looped.crossfit)
    np.testing.assert_allclose(held.novelty[: model.n_seed], seen.none, atol=1e-6)
    right = held.best[: model.n_seed] == model.example_labels[: model.n_seed]
    assert right.tolist() == seen.right.tolist()
    assert held.risk[: model.n_seed].tolist() == seen.risk(model.thresholds.none).tolist()


def test_the_users_rows_are_as_doubtful_as_they_were_when_they_were_held_back():
    """The weights of a learned risk were fitted on them."""
    many = make_corpus(per_label=25, pool_per_label=0, test_per_label=0)
    blurred = FakeEncoder(spread=6)  # or there are too few errors to learn from
    job = many.job(router={"risk": "learned", "folds": 3, "lexical": False})
    trained = asyncio.run(train(job, fleet=LocalFleet(blurred, n_threads=1)))
    model = with_goal(trained.model, GOAL, 0.9, None, lambda: blurred)
    assert model.risk is not None
    held = held_out(model, trained.crossfit)
    assert held.risk.tolist() == model.calibration.risk(model.thresholds.none).tolist()


def test_without_what_the_run_keeps_nothing_is_known_of_what_it_learned(looped, large):
    model = looped.model
    learned = {text_key(text) for text in model.example_texts[model.n_seed :]}
    found = own_reference(model, snapshot(large, pool=large.pool), ENCODER)
    is_learned = np.array([text_key(text) in learned for text in found.rows.texts])
    assert found.rows.is_blind.tolist() == is_learned.tolist()
    assert found.rows.none[is_learned].all()
    assert found.rows.escalated[is_learned].all()
    assert not found.has_shares
    assert "label shares are not compared" in found.no_shares
    assert f"of {len(learned):,} of the reference's texts" in found.notes[0]
    report = compare(model, score_texts(model, large.test, ENCODER), found, TRIFLES)
    assert report.of(LABEL) == ()
    assert report.notes[-1] == found.no_shares
    assert not report.is_drift
    assert report.of(NONE)[0].hits_before >= len(learned)


def test_a_text_that_a_judge_refused_may_have_its_label_or_none(looped, large):
    model, crossfit = looped.model, looped.crossfit
    refused = crossfit.refused.texts
    assert refused
    found = own_reference(model, snapshot(large, pool=large.pool), ENCODER, crossfit=crossfit)
    at = [row for row, text in enumerate(found.rows.texts) if text in refused]
    assert found.rows.is_blind[at].all()
    assert found.n_blind == len(refused)
    assert (found.rows.best[at] >= 0).all()
    assert found.has_shares


def test_unshifted_texts_raise_no_more_alarms_than_stated_against_a_looped_runs_pool(looped, large):
    """Draws of one pool share its luck, so that of these few a twelfth may be alarms."""
    model, rng = looped.model, np.random.default_rng(4)
    rows = snapshot(large, pool=large.pool)
    found = own_reference(model, rows, ENCODER, crossfit=looped.crossfit)
    fresh = score_texts(model, large.test, ENCODER)
    draws = [rng.choice(len(fresh), 400, replace=False) for _ in range(24)]
    alarms = sum(compare(model, fresh.take(draw), found, TRIFLES).is_drift for draw in draws)
    assert alarms <= 2
    # Held against what the loop left of the pool, they do.
    keys = frozenset(map(text_key, model.example_texts))
    left = found.without(keys)
    alarms = sum(compare(model, fresh.take(draw), left, TRIFLES).is_drift for draw in draws)
    assert alarms >= 8


def test_a_run_that_began_without_rows_is_held_against_its_pool_alike(large):
    """A judge labelled all that it learned, and each of these rows was held back once."""
    loop = {"max_iterations": 2, "samples_per_iteration": 60}
    job = replace(
        large.job(loop=loop, judge={"top_k": 3}), texts=(), labels=(), label_set=large.names
    )
    trained = asyncio.run(train(job, FakeValidator(truth(large))))
    model, rows = trained.model, snapshot(large, pool=large.pool, train=NO_ROWS)
    assert model.n_seed == 0
    found = own_reference(model, rows, ENCODER, crossfit=trained.crossfit)
    assert found.sure.all()
    assert found.has_shares
    assert found.n_blind == len(trained.crossfit.refused.texts)
    report, _ = find_drift(model, large.test, found, encoder=ENCODER)
    assert not report.is_drift, report.findings
    left = found.without(frozenset(map(text_key, model.example_texts)))
    naive, _ = find_drift(model, large.test, left, encoder=ENCODER)
    assert naive.is_drift


# --- the level, by counting ---------------------------------------------------------------------


def simulated(population, rng, n_labels):
    """A pool of which a loop learned the most doubtful texts, and the user some of each label.

    Half of what the loop learned has held-out answers, which are those of a model that never saw
    the texts; of the other half nothing is known. What the user labelled left the pool.
    """
    order = rng.permutation(len(population))
    pool, rest = order[:700], order[700:]
    mine = [pool[population.best[pool] == label][:6] for label in range(n_labels)]
    by_user = np.concatenate(mine)
    doubt = np.argsort(-population.risk[pool], kind="stable")
    blind = np.zeros(len(population), dtype=bool)
    blind[pool[doubt[:120:12]]] = True
    sure = ~np.isin(pool, by_user)
    at, rows = blind[pool], population.take(pool)
    unknown = replace(
        rows,
        best=np.where(at, -1, rows.best),
        none=rows.none | at,
        novelty=np.where(at, np.inf, rows.novelty),
        risk=np.where(at, np.inf, rows.risk),
        escalated=rows.escalated | at,
    )
    learned = np.isin(np.arange(len(pool)), doubt[:120])
    return unknown, sure, learned, population.take(rng.choice(rest, 500, replace=False))


def test_the_level_is_kept_with_learned_and_unknown_texts(monkeypatch, model, population):
    """At level 0.05 of 150 draws 14 or more are alarms in one case of a hundred at most."""
    monkeypatch.setattr(drift, "_sight", lambda *_: None)  # it takes most of the time
    rng, alarms, naive = np.random.default_rng(1), 0, 0
    for _ in range(150):
        rows, sure, learned, recent = simulated(population, rng, len(model.labels))
        reference = Reference(rows, "pool", is_sure=sure)
        alarms += compare(model, recent, reference, TRIFLES).is_drift
        left = Reference(rows.take(np.flatnonzero(sure & ~learned)), "pool")
        naive += compare(model, recent, left, TRIFLES).is_drift
    assert alarms < 14
    assert naive > 75  # what a loop left is no sample of the traffic


def test_what_is_not_known_hides_a_shift_and_does_not_invent_one(monkeypatch, model, population):
    """Each p-value is at least that of any way in which the unknown could be."""
    monkeypatch.setattr(drift, "_sight", lambda *_: None)
    rng, n_labels = np.random.default_rng(5), len(model.labels)
    rows, sure, _, recent = simulated(population, rng, n_labels)
    # A label that grew and one that fell, as else nothing is near to being found.
    many, few = np.flatnonzero(recent.best == 0), np.flatnonzero(recent.best != 1)
    recent = recent.take(np.concatenate([few, np.resize(many, 60)]))
    found = compare(model, recent, Reference(rows, "pool", is_sure=sure), TRIFLES)
    p = {(one.kind, one.name, one.expert): one.p for one in found.comparisons}
    assert (
        max(p[LABEL, name, model.expert_of[at]] for at, name in enumerate(model.labels[:2])) < 0.1
    )
    at = np.flatnonzero(rows.is_blind)
    names = ("best", "none", "risk", "escalated", "novelty")
    for way in range(30):
        # In turn the unknown are of the label that grew, of that which fell, or of any.
        like = np.flatnonzero((population.best == way % 3) | (way % 3 == 2))
        pool = sure | (rng.random(len(rows)) < 0.5) & ((rows.best == way % 3) | (way % 3 == 2))
        drawn = population.take(rng.choice(like, len(at)))
        told = {name: getattr(rows, name).copy() for name in names}
        for name, values in told.items():
            values[at] = getattr(drawn, name)
        one_way = replace(rows, **told).take(np.flatnonzero(pool))
        for one in compare(model, recent, Reference(one_way, "pool"), TRIFLES).comparisons:
            if one.kind in (LABEL, NONE, ESCALATION, PROMISE):
                key = (one.kind, one.name, one.expert)
                assert p[key] >= one.p * (1 - 1e-9), key


def test_a_tripled_label_is_found_beside_a_looped_runs_pool(looped, large):
    model = looped.model
    found = own_reference(
        model, snapshot(large, pool=large.pool), ENCODER, crossfit=looped.crossfit
    )
    fresh = score_texts(model, large.test, ENCODER)
    label = model.labels.index(large.test_labels[0])
    mine = np.flatnonzero(fresh.best == label)[:40]
    others = np.flatnonzero(fresh.best != label)[:120]
    report = compare(model, fresh.take(np.r_[mine, others]), found, DriftSettings())
    assert model.labels[label] in [one.name for one in report.findings if one.grew]


# --- whose rows are of the traffic --------------------------------------------------------------


def test_rows_drawn_from_the_pools_texts_belong_to_it_again(model, large):
    """With `samples_per_class` the pool lacks them, so many of each label."""
    sampled = with_samples(model, 5)
    found = own_reference(sampled, snapshot(large, pool=large.pool), ENCODER)
    assert found.sure.all()
    assert len(found.rows) == len(large.pool) + len(large.texts)
    at = found.rows.texts.index(large.texts[7])
    # Not what the model says of a row that it learned: what one said that had not seen it.
    assert found.rows.novelty[at] == model.calibration.none[7]
    right = model.calibration.right
    best = [model.labels[label] if label >= 0 else None for label in found.rows.best]
    assert best[at] == (large.labels[7] if right[7] else None)
    assert best.count(None) == (~right).sum()


def test_examples_from_elsewhere_do_not_count_as_traffic(model, large):
    """Before, 40 examples of one label made its share fall in all texts that came after."""
    name = large.labels[0]
    more = tuple(t for t, label in zip(large.test, large.test_labels, strict=True) if label == name)
    rows = LabelledRows((*large.texts, *more[:40]), (*large.labels, *[name] * 40))
    learned = labels.refit(
        model, None, [], examples=labels.Examples(more[:40], (name,) * 40), encoder=ENCODER
    )
    sampled = with_samples(learned.model, 5)
    texts = [text for text in large.test if text not in more[:40]]
    kept = snapshot(large, pool=large.pool, train=rows)
    for changed in (False, True):  # more rows of a label than are drawn tell the same
        found = own_reference(sampled, kept, ENCODER, crossfit=learned.crossfit, is_changed=changed)
        assert found.sure.sum() == len(large.pool)
        report, _ = find_drift(sampled, texts, found, encoder=ENCODER)
        one = next(one for one in report.of(LABEL) if one.name == name)
        assert one.n_before <= len(large.pool) + len(rows)
        share = np.mean([large.hidden[text] == name for text in large.pool])
        assert one.share_before == pytest.approx(share, abs=0.06)


def test_a_label_added_from_the_pool_raises_no_alarm(added, large):
    """What was found stays in the pool, and the model's rows of it are a judge's."""
    model, reference, found = added
    assert reference.has_shares
    assert not any(np.isnan(reference.rows.confidence))
    report, _ = find_drift(model, large.test, reference, encoder=ENCODER)
    assert not report.is_drift, report.findings
    one = next(one for one in report.of(LABEL) if one.name == large.labels[-1])
    assert one.hits_before > len(found) / 2


def test_texts_that_left_with_a_change_are_known_to_some_experts_all_the_same(looped, large):
    """Experts that the change did not concern learned them as noise."""
    name = looped.model.labels[0]
    learned = looped.model.example_texts
    gone = {
        text
        for text, label in zip(learned, looped.model.example_labels, strict=True)
        if label == 0 and text in large.pool
    }
    change = labels.retire(looped.model, looped.crossfit, name, encoder=ENCODER)
    found = own_reference(
        change.model,
        snapshot(large, pool=large.pool),
        ENCODER,
        crossfit=change.crossfit,
        is_changed=True,
    )
    blind = {found.rows.texts[row] for row in np.flatnonzero(found.rows.is_blind & found.sure)}
    assert len(gone) > 5
    assert blind == gone | set(looped.crossfit.refused.texts)


def test_rows_of_a_warm_start_may_be_of_the_traffic(looped, large):
    """They left the pool, and the loop had chosen them: without them it looks too familiar."""
    model, crossfit = looped.model, looped.crossfit
    by_judge = frozenset(model.example_texts[model.n_seed :])
    names = [model.labels[label] for label in model.example_labels[model.n_seed :]]
    judged = LabelledRows(model.example_texts[model.n_seed :], tuple(names))
    pool = tuple(text for text in large.pool if text not in by_judge)
    found = own_reference(
        model, snapshot(large, pool=pool, judged=judged), ENCODER, crossfit=crossfit
    )
    assert found.sure.sum() == len(pool)
    report = compare(model, score_texts(model, large.test, ENCODER), found, DriftSettings())
    assert not report.is_drift, report.findings
    bare = own_reference(model, snapshot(large, pool=pool), ENCODER, crossfit=crossfit)
    naive = compare(model, score_texts(model, large.test, ENCODER), bare, DriftSettings())
    assert naive.is_drift


# --- repeated traffic ---------------------------------------------------------------------------


def test_a_text_that_stands_on_both_sides_is_left_out_of_both(model, large):
    reference = given_reference(model, large.pool[:300], ENCODER)
    again = large.pool[:30]
    report, scored = find_drift(model, (*large.test, *again), reference, encoder=ENCODER)
    assert report.n == len(scored) == len(large.test)
    assert report.n_before == 270
    assert report.notes == ("left out 30 recent texts that stand in the reference too, of both",)


def test_texts_that_come_again_do_not_look_like_drift(added, large):
    """40 of the 60 texts of a label were learned and come again: before, they left one side."""
    model, reference, again = added
    name, rng = large.labels[-1], np.random.default_rng(2)
    pairs = [*zip(large.test, large.test_labels, strict=True)]
    mine, others = ([t for t, n in pairs if (n == name) is same] for same in (True, False))
    report, _ = find_drift(
        model, [*again, *mine[:20], *rng.permutation(others)], reference, encoder=ENCODER
    )
    assert report.n == 680
    assert report.n_before == 680
    assert not report.is_drift, report.findings


def test_where_most_texts_come_again_label_shares_are_not_compared(model, large):
    reference = given_reference(model, large.pool, ENCODER)
    texts = (*large.test[:100], *large.pool[:60])
    report, _ = find_drift(model, texts, reference, encoder=ENCODER)
    assert report.of(LABEL) == ()
    assert "38% of the recent texts were learned or stand in the reference too" in report.notes[-1]
    assert report.of(NOVELTY)


def test_recent_texts_that_are_all_in_the_reference_are_a_mistake(model, large):
    reference = given_reference(model, large.pool, ENCODER)
    with pytest.raises(DataError, match="each of the 50 recent texts stands in what they are held"):
        find_drift(model, large.pool[:50], reference, encoder=ENCODER)


# --- other references ---------------------------------------------------------------------------


def test_the_pool_comes_first_then_rows_held_back_then_the_training_rows(model, large):
    held = LabelledRows(large.test[:60], large.test_labels[:60])
    test, calibration = TestRows(held, (), 0, ()), KnownRows(held, ())
    both = snapshot(large, pool=large.pool, test=test)
    assert own_reference(model, both, ENCODER).source == "pool"
    for known in (snapshot(large, test=test), snapshot(large, calibration=calibration)):
        found = own_reference(model, known, ENCODER)
        assert found.source == "known"
        assert found.rows.texts == held.texts
        assert "no pool" in found.no_shares
    for nothing in (None, snapshot(large), snapshot(large, pool=large.pool[:10])):
        assert own_reference(model, nothing, ENCODER).source == "cross_fitted"


def test_rows_of_somebodys_choosing_have_no_shares_to_compare(model, large):
    """Test rows are often so many of each label, whatever comes: that is no drift of what does."""
    chosen = [*range(0, 60), *range(60, 720, 12)]
    held = LabelledRows(
        tuple(large.pool[row] for row in chosen),
        tuple(large.hidden[large.pool[row]] for row in chosen),
    )
    found = own_reference(model, snapshot(large, calibration=KnownRows(held, ())), ENCODER)
    report, _ = find_drift(model, large.test, found, encoder=ENCODER)
    assert report.of(LABEL) == ()
    assert not report.is_drift
    assert "--reference with texts as they came compares them" in report.notes[-1]
    same, _ = find_drift(model, large.test, replace(found, no_shares=""), encoder=ENCODER)
    assert same.is_drift


def test_a_reference_given_may_hold_texts_that_the_model_learned(looped, large):
    """A loop's own pool, given by hand, is what it is without."""
    model, crossfit = looped.model, looped.crossfit
    given = given_reference(model, large.pool, ENCODER, crossfit=crossfit)
    own = own_reference(model, snapshot(large, pool=large.pool), ENCODER, crossfit=crossfit)
    assert len(given.rows) == len(large.pool)
    assert given.rows.novelty.tolist() == own.rows.novelty[own.sure].tolist()
    with pytest.raises(DataError, match="the model learned every text of the reference"):
        given_reference(model, large.texts, ENCODER)


def test_a_promise_that_was_never_kept_is_no_drift(model, population):
    """The rows that it rests on may be others than what comes: that is so from the first day."""
    doubtful = np.argsort(-population.risk, kind="stable")[:320]
    rng = np.random.default_rng(3)
    order = rng.permutation(doubtful)
    reference = Reference(population.take(order[:160]), "pool")
    report = compare(model, population.take(order[160:]), reference, DriftSettings())
    (promise,) = report.of(PROMISE)
    assert promise.share > 0.4  # 0.3 were promised
    assert not promise.is_drift
    assert not report.is_drift
