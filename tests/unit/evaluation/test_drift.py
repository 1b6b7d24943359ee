"""Planted shifts are named with their experts, and what is drawn alike is no drift."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from red_ray.calibration import with_goal
from red_ray.config import Goal
from red_ray.core.text import text_key
from red_ray.core.thresholds import CalibrationRows
from red_ray.errors import ConfigError, DataError
from red_ray.evaluation.drift import compare, find_drift, fresh_texts
from red_ray.evaluation.drift_reference import (
    Reference,
    given_reference,
    own_reference,
)
from red_ray.evaluation.drift_report import ESCALATION, LABEL, NOVELTY, PROMISE, DriftSettings
from red_ray.evaluation.drift_rows import (
    MOST_TEXTS,
    drawn,
    score_texts,
)
from tests.unit.training.fakes import FakeEncoder, make_corpus, train

HALF = Goal(escalate_at_most=0.5)
ENCODER = FakeEncoder()


@pytest.fixture(scope="module")
def large():
    return make_corpus(pool_per_label=60, test_per_label=60)


@pytest.fixture(scope="module")
def model(large):
    trained = asyncio.run(train(replace(large, pool=()).job())).model
    return with_goal(trained, HALF, 0.9, None, lambda: ENCODER)


@pytest.fixture(scope="module")
def rows(model, large):
    """Scored texts, half of which can be the reference, and their labels."""
    scored = score_texts(model, large.pool + large.test, ENCODER)
    labels = [large.hidden[text] for text in large.pool] + [*large.test_labels]
    return scored, np.array([model.labels.index(label) for label in labels])


@pytest.fixture
def halves(rows):
    """A reference, and the positions of the other texts."""
    scored, _ = rows
    order = np.random.default_rng(3).permutation(len(scored))
    return Reference(scored.take(order[:720]), "pool"), order[720:]


def new_topic(n):
    return [f"please family9 topic99 stray{i % 6} now topic99{i % 4} x{i}" for i in range(n)]


def with_new(model, rows, at, n):
    texts = [rows[0].texts[row] for row in at]
    return score_texts(model, texts[: len(texts) - n] + new_topic(n), ENCODER)


# --- planted shifts -----------------------------------------------------------------------------


def test_a_tripled_label_is_named_with_its_expert(model, rows, halves):
    scored, labels = rows
    reference, left = halves
    mine, others = left[labels[left] == 5], left[labels[left] != 5]
    recent = scored.take(np.concatenate([mine[:40], others[:120]]))  # a quarter, 1 in 12 before
    report = compare(model, recent, reference, DriftSettings())
    grown = [one for one in report.findings if one.kind == LABEL and one.grew]
    assert [one.name for one in grown] == [model.labels[5]]
    assert [expert.expert for expert in report.experts] == [model.expert_of[5]]
    assert model.labels[5] in report.experts[0].labels
    assert f"of the texts are {model.labels[5]}" in report.experts[0].reasons[0]
    assert "--refit" in report.experts[0].advice
    assert not report.topics


def test_a_new_topic_is_shown_by_its_texts_with_the_expert_that_its_answers_come_from(
    model, rows, halves
):
    reference, left = halves
    recent = with_new(model, rows, left[:200], 20)
    report = compare(model, recent, reference, DriftSettings())
    (topic,) = report.topics
    assert set(topic.texts) < set(new_topic(20))
    assert topic.compared.hits == len(topic.texts) >= 18  # a stray word may look familiar
    assert topic.compared.hits_before == 0
    answers = [model.expert_of[int(best)] for best in recent.best[-20:]]
    assert topic.experts[0] == max(set(answers), key=answers.count)
    assert set(topic.experts) <= {expert.expert for expert in report.experts}
    advice = {expert.expert: expert.advice for expert in report.experts}
    assert "red-ray label add" in advice[topic.experts[0]]
    assert set(report.most_novel) <= set(new_topic(20))


def test_more_escalations_than_promised_are_named(model, rows, halves):
    reference, left = halves
    scored, _ = rows
    doubtful = left[np.argsort(-scored.risk[left], kind="stable")]
    threshold = model.thresholds.escalate
    n_over = int((scored.risk[doubtful] >= threshold).sum())
    assert n_over >= 100  # or the test shows nothing
    recent = scored.take(np.concatenate([doubtful[:100], doubtful[-20:]]))
    report = compare(model, recent, reference, DriftSettings())
    assert report.promised == 0.5
    (promise,) = report.of(PROMISE)
    assert promise.is_drift
    assert promise.share == pytest.approx(100 / 120)
    assert report.of(ESCALATION)[0].is_drift


def test_a_label_that_vanished_is_drift_and_no_reason_for_a_refit(model, rows, halves):
    scored, labels = rows
    reference, left = halves
    gone = scored.take(left[(labels[left] != 5) & (scored.best[left] != 5)])
    report = compare(model, gone, reference, DriftSettings())
    shrunk = [one for one in report.findings if one.kind == LABEL]
    assert [one.name for one in shrunk] == [model.labels[5]]
    assert not shrunk[0].grew
    assert report.experts == ()


# --- no shift -----------------------------------------------------------------------------------


def test_forty_resamplings_alike_give_no_alarm(model, rows):
    """At level 0.01 each, 40 draws give none in two cases of three: these seeds are such."""
    scored, _ = rows
    rng = np.random.default_rng(8)
    for _ in range(40):
        order = rng.permutation(len(scored))
        reference = Reference(scored.take(order[:720]), "pool")
        report = compare(model, scored.take(order[720:1020]), reference, DriftSettings())
        assert not report.is_drift, report.findings


def test_a_trifle_is_no_drift_however_sure_it_is():
    settings = DriftSettings()
    assert not settings.matters(0.1, 0.13, 1.3)
    assert settings.matters(0.1, 0.16, 1.6)
    assert settings.matters(0.3, 0.36, 1.2)  # six points of all texts are no trifle
    assert not settings.matters(0.0005, 0.0015, 3.0)
    assert settings.matters(0.16, 0.1, 1 / 1.6)


def test_the_smallest_ratio_decides_what_matters(model, rows, halves):
    scored, labels = rows
    reference, left = halves
    mine, others = left[labels[left] == 5], left[labels[left] != 5]
    recent = scored.take(np.concatenate([mine[:40], others[:120]]))
    strict = DriftSettings(min_ratio=10, large_change=1.0)
    assert not compare(model, recent, reference, strict).is_drift


def test_few_texts_give_no_alarm_and_say_what_they_could_have_shown(model, rows, halves):
    scored, _ = rows
    reference, left = halves
    report = compare(model, scored.take(left[:8]), reference, DriftSettings())
    assert not report.is_drift
    assert report.sight.least_share > 0.5
    assert 30 < report.sight.n_for_triple < 400
    one = compare(model, scored.take(left[:1]), reference, DriftSettings())
    assert not one.is_drift
    assert one.sight.least_share is None


def test_what_could_be_shown_is_shown(model, rows, halves):
    """With twice the texts that a tripled label is said to take, each of them is found."""
    scored, labels = rows
    reference, left = halves
    n = compare(model, scored.take(left[:50]), reference, DriftSettings()).sight.n_for_triple
    for label in (0, 4, 9):
        mine, others = left[labels[left] == label], left[labels[left] != label]
        k = round(2 * n / 4)
        recent = scored.take(np.concatenate([np.resize(mine, k), others[: 2 * n - k]]))
        found = compare(model, recent, reference, DriftSettings()).findings
        assert model.labels[label] in [one.name for one in found]


# --- references ---------------------------------------------------------------------------------


def test_training_rows_show_novelty_and_escalations_and_no_shares(model, rows, halves):
    reference = own_reference(model, None, ENCODER)
    assert len(reference.rows) == model.n_seed
    assert "--reference" in reference.no_shares
    _, left = halves
    report = compare(model, with_new(model, rows, left[:200], 60), reference, DriftSettings())
    assert report.notes == (reference.no_shares,)
    assert report.of(LABEL) == ()
    assert report.sight is None
    assert report.of(NOVELTY, experts=True) == ()
    assert report.of(NOVELTY)[0].is_drift
    assert report.of(ESCALATION)[0].n_before == model.n_seed
    same = compare(model, rows[0].take(left[:200]), reference, DriftSettings())
    assert not same.is_drift


def test_without_scores_of_each_training_row_novelty_is_compared_all_the_same(model, rows, halves):
    seen = model.calibration
    some = CalibrationRows(
        *(getattr(seen, name)[:40] for name in ("label_risk", "right", "offered", "none")),
        seen.none_out_of_scope,
    )
    reference = own_reference(replace(model, calibration=some), None, ENCODER)
    assert len(reference.rows) == 40
    _, left = halves
    report = compare(model, with_new(model, rows, left[:200], 120), reference, DriftSettings())
    assert report.of(NOVELTY)[0].is_drift
    assert report.topics == ()


# --- the whole way ------------------------------------------------------------------------------


def test_texts_are_cleaned_scored_and_their_labels_give_the_accuracy(model, large):
    reference = given_reference(model, large.pool, ENCODER)
    texts = [*large.test[:100], large.test[0].upper(), *large.texts[:3], *new_topic(2)]
    labels = dict(zip(map(text_key, large.test), large.test_labels, strict=True))
    labels |= {text_key(text): "brand_new" for text in new_topic(2)}
    report, scored = find_drift(model, texts, reference, labels=labels, encoder=ENCODER)
    assert report.n == len(scored) == 102
    assert report.notes[:2] == (
        "recent: left out 3 texts that the model learned from",
        "recent: left out 1 text that stood there before",
    )
    best = [model.labels[label] for label in scored.best[:100]]
    right = np.mean([a == b for a, b in zip(best, large.test_labels[:100], strict=True)])
    assert report.accuracy.accuracy == pytest.approx(right)
    assert report.accuracy.unknown == {"brand_new": 2}
    assert report.accuracy.estimate == pytest.approx(model.calibration.right.mean())
    assert report.accuracy.labelled_by == "user"
    cold = replace(model, labelled_by="judge")
    judged, _ = find_drift(cold, texts, reference, labels=labels, encoder=ENCODER)
    assert judged.to_dict()["accuracy"]["labelled_by"] == "judge"


def test_the_report_is_json(model, rows, halves):
    reference, left = halves
    report = compare(model, with_new(model, rows, left[:200], 20), reference, DriftSettings())
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["drift"] is True
    assert content["topics"][0]["compared"]["hits"] == len(content["topics"][0]["texts"])
    assert content["findings"][0]["share_ci"][0] < content["findings"][0]["share"]
    assert content["escalation"]["promised"] == 0.5


def test_a_model_without_a_goal_escalates_nothing(model, rows, halves):
    reference, left = halves
    plain = replace(model, promise=None)
    report = compare(plain, rows[0].take(left[:100]), reference, DriftSettings())
    assert report.of(ESCALATION) == report.of(PROMISE) == ()
    assert report.promised is None
    assert report.to_dict()["escalation"] is None


def test_texts_that_are_all_learned_are_a_mistake(model, large):
    with pytest.raises(DataError, match="none of the 60 recent texts is new to the model"):
        fresh_texts(model, large.texts)
    with pytest.raises(DataError, match="there are no recent texts"):
        fresh_texts(model, [])


def test_what_is_left_of_texts_that_were_learned_may_be_a_choice_of_them(model, rows, halves):
    """As after a refit on the labelled ones among them: of all its label, what is left has none."""
    reference, left = halves
    scored, truth = rows
    lacks = [scored.texts[row] for row in left if truth[row] != 0]
    whole, _ = find_drift(model, lacks, reference, encoder=ENCODER)
    assert model.labels[0] in [one.name for one in whole.findings if one.kind == LABEL]
    lessons = model.example_texts
    assert len(lessons) < len(lacks) * 0.2 < 3 * len(lessons)
    few, _ = find_drift(model, [*lacks[: 2 * len(lessons)], *lessons], reference, encoder=ENCODER)
    assert few.of(LABEL) == ()
    assert "33% of the recent texts were learned" in few.notes[-1]


def test_of_very_many_texts_some_are_drawn_and_that_is_said():
    texts = [str(i) for i in range(MOST_TEXTS + 5)]
    kept, notes = drawn(texts, 1, "recent")
    assert len(set(kept)) == MOST_TEXTS
    assert "20,000 of 20,005" in notes[0]
    assert drawn(texts, 1, "recent")[0] == kept
    assert drawn(texts[:9], 1, "recent") == (tuple(texts[:9]), ())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"level": 0.0}, "between 0 and 1, got 0.0"),
        ({"level": 1.5}, "between 0 and 1, got 1.5"),
        ({"min_ratio": 0.5}, "at least 1, got 0.5"),
        ({"min_change": 1.0}, "0 to 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_a_mistake(settings, words):
    with pytest.raises(ConfigError, match=words):
        DriftSettings(**settings)
