"""The scorecard's contract: every key, an interval for every rate, and figures worked by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from red_ray.core.thresholds import Promise, Thresholds
from red_ray.evaluation.details import run_details, test_details
from red_ray.evaluation.predictions import Predictions, predict_rows
from red_ray.evaluation.scorecard import JudgeBill, RunFacts, scorecard, versions
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train, truth

details_of = test_details
del test_details  # pytest would take it for a test

KEYS = {
    "": "n_test n_labels accuracy macro_f1 precision_weighted recall_weighted f1_weighted "
    "accuracy_decided answered_share baselines calibration router none judge leaks timing_s seed "
    "versions",
    "baselines": "majority flat flat_seed_rows experts_only oracle_routed",
    "calibration": "source ece brier",
    "none": "auroc fpr_at_95",
    "judge": "calls labels_per_call label_precision validation_rate unreadable cost_usd",
    "leaks": "train_test train_test_dropped",
    "timing_s": "encode fit score judge_wait total",
}
"""As the design writes them."""

RATES = {
    "": "accuracy macro_f1 precision_weighted recall_weighted f1_weighted accuracy_decided "
    "answered_share",
    "baselines": KEYS["baselines"],
    "calibration": "ece brier",
    "none": "auroc fpr_at_95",
    "judge": "labels_per_call label_precision validation_rate",
}

OOS = ("what is the weather", "sing me a song", "who won the match", "tell me a joke")


@pytest.fixture(scope="module")
def trained(corpus):
    return asyncio.run(train(corpus.job(), FakeValidator(truth(corpus))))


@pytest.fixture(scope="module")
def model(trained):
    return trained.model


@pytest.fixture(scope="module")
def facts(trained):
    rounds = [replace(one, label_precision=1.0) for one in trained.iterations]
    timing = trained.timing_s | {"total": 9.0}
    return RunFacts(rounds, "simulated:1.0", n_dropped=2, timing_s=timing)


@pytest.fixture(scope="module")
def rows(model, corpus):
    return predict_rows(model, corpus.test, corpus.test_labels, OOS, FakeEncoder())


@pytest.fixture(scope="module")
def card(model, rows, facts):
    return scorecard(model, rows, facts)


def part(card, name):
    return card[name] if name else card


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_the_contract_is_there(card, name):
    assert set(KEYS[name].split()) <= set(part(card, name))


@pytest.mark.parametrize(("name", "rate"), [(n, r) for n in RATES for r in RATES[n].split()])
def test_every_rate_lies_in_its_interval(card, name, rate):
    value, interval = part(card, name)[rate], part(card, name)[f"{rate}_ci"]
    assert value is not None
    low, high = interval
    assert low <= value <= high
    assert 0 <= low <= high <= (2 if rate == "brier" else 1)


def test_it_survives_json_bit_by_bit(card):
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_it_counts_rows_and_labels(card, corpus):
    assert (card["n_test"], card["n_labels"]) == (len(corpus.test), len(corpus.names))
    assert card["n_unknown_label"] == 0
    assert card["leaks"] == {"train_test": 0, "train_test_dropped": 2}
    assert card["seed"] == 42
    assert card["versions"] == versions()


def test_no_goal_is_no_router_part(card):
    assert card["router"] is None


def test_a_run_without_judge_and_out_of_scope_rows_says_so(model, corpus):
    rows = predict_rows(model, corpus.test, corpus.test_labels, (), FakeEncoder())
    card = scorecard(model, rows, RunFacts((), None, 0, {}))
    assert card["none"] is None
    assert card["judge"] is None
    assert details_of(model, rows)["none_histogram"] is None


def test_the_judges_part_is_what_the_history_says(card, facts):
    """Defect 12 and 11: calls are requests, and an unreadable answer is neither label nor "no"."""
    judge, rounds = card["judge"], facts.iterations
    calls = sum(one.n_requests for one in rounds)
    labels = sum(one.n_labelled for one in rounds)
    nones = sum(one.n_none for one in rounds)
    assert judge["calls"] == calls > 0
    assert judge["labels_per_call"] == pytest.approx(labels / calls, abs=1e-6)
    assert judge["validation_rate"] == pytest.approx(labels / (labels + nones), abs=1e-6)
    assert judge["label_precision"] == 1.0
    assert (judge["results"], judge["cost_usd"]) == (None, None), "nobody said what it cost"


def test_the_judges_bill_is_what_the_ledger_says(model, rows, facts):
    """A run that was cut short paid too, and its requests stand in the ledger alone."""
    bill = JudgeBill({"label": 40, "timeout": 3, "unknown": 2}, 4_700, 0.25)
    judge = scorecard(model, rows, replace(facts, bill=bill))["judge"]
    assert judge["calls"] == 45
    assert judge["results"] == {"label": 40, "timeout": 3, "unknown": 2}
    assert (judge["tokens"], judge["cost_usd"]) == (4_700, 0.25)


def test_planted_questions_estimate_the_judge(model, rows, facts):
    one, two = (replace(facts.iterations[0], n_gold=n, n_gold_right=n - 1) for n in (4, 6))
    judge = scorecard(model, rows, replace(facts, iterations=[one, two]))["judge"]
    assert (judge["n_gold"], judge["gold_accuracy"]) == (10, 0.8)
    low, high = judge["gold_accuracy_ci"]
    assert low < 0.8 < high
    none_asked = scorecard(model, rows, facts)["judge"]
    assert (none_asked["n_gold"], none_asked["gold_accuracy"]) == (0, None)


def test_unreadable_answers_stay_out_of_the_validation_rate(model, rows, facts):
    one = replace(
        facts.iterations[0],
        n_asked=10, n_labelled=3, n_none=1, n_unreadable=4, n_failed=2, n_requests=12,
        label_precision=2 / 3,
    )  # fmt: skip
    judge = scorecard(model, rows, RunFacts([one], "ollama:m", 0, {}))["judge"]
    assert judge["validation_rate"] == 0.75
    assert judge["labels_per_call"] == 0.25
    assert judge["label_precision"] == pytest.approx(2 / 3, abs=1e-6)
    assert (judge["unreadable"], judge["failed"]) == (4, 2)
    assert judge["cost_usd"] is None  # not known, and not nothing


# --- by hand -----------------------------------------------------------------------------------


@pytest.fixture
def by_hand(model):
    """Four rows of two labels, the rest of the mass nowhere."""
    n_labels = len(model.labels)
    proba = np.zeros((4, n_labels))
    proba[0, :2] = (0.9, 0.1)
    proba[1, :2] = (0.8, 0.2)
    proba[2, :2] = (0.3, 0.7)
    proba[3, :2] = (0.6, 0.4)
    true = np.array([0, 0, 1, 1])
    rivals = dict.fromkeys(
        ("majority", "flat", "flat_seed_rows", "experts_only", "oracle_routed"), np.zeros(4, int)
    )
    none = np.array([0.1, 0.2, 0.1, 0.7])
    empty = np.zeros(0)
    risk = 1 - proba.max(axis=1)
    texts = ("a", "b", "c", "d")
    return Predictions(texts, true, proba, risk, none, rivals, empty, 0.0, 0.0)


def test_golden_figures(model, by_hand):
    """Three of four right; the wrong row is the one that the rule leaves without a label."""
    card = scorecard(model, by_hand, RunFacts((), None, 0, {}))
    assert card["accuracy"] == 0.75
    assert card["accuracy_ci"] == [
        pytest.approx(0.300642, abs=1e-6),
        pytest.approx(0.954413, abs=1e-6),
    ]
    assert card["accuracy_decided"] == 1.0
    assert card["answered_share"] == 0.75
    # Four bins of one row each: |0.9 - 1|, |0.8 - 1|, |0.7 - 1|, |0.6 - 0|, a quarter each.
    assert card["calibration"]["ece"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    # 2 (1 - p)² of two labels: 0.02 + 0.08 + 0.18 + 0.72, over four rows.
    assert card["calibration"]["brier"] == pytest.approx(0.25)
    # Label 0: 2 of 3 right, all 2 found; label 1: 1 of 1 right, 1 of 2 found.
    assert card["precision_weighted"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert card["recall_weighted"] == pytest.approx(0.75)
    assert card["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-6)
    assert card["baselines"]["majority"] == 0.5


def test_what_a_goal_came_to_is_counted_on_the_models_own_answers(model, by_hand):
    """The fourth row is wrong twice: its label, and *none*, which is what the model answers."""
    assert scorecard(model, by_hand, RunFacts((), None, 0, {}))["router"] is None
    goals, thresholds = {"catch_errors": 0.8}, Thresholds(escalate=0.15, none=0.5)
    promise = Promise(thresholds, goals, 0.9, "rows", "", (), 60, 12, 0)
    asked = replace(model, promise=promise)
    card = scorecard(asked, by_hand, RunFacts((), None, 0, {}))
    router = card["router"]
    # Risks: 0.1, 0.2, 0.3 of labels, and 1 - 0.7 of none.
    assert (router["n_positive"], router["n_errors"], router["recall_target"]) == (3, 1, 0.8)
    assert (router["recall"], router["positive_rate"]) == (1.0, 0.75)
    assert router["accept_precision"] == 1.0
    assert (router["source"], card["calibration"]["source"]) == ("rows", "rows")
    assert card["answered_share"] == 0.25
    none_asked = replace(promise, thresholds=Thresholds(escalate=None, none=0.5))
    card = scorecard(replace(model, promise=none_asked), by_hand, RunFacts((), None, 0, {}))
    assert (card["router"]["recall"], card["router"]["accept_precision"]) == (0.0, 0.75)


@pytest.mark.parametrize("seed", range(12))
def test_a_small_calibration_error_lies_in_its_interval_too(model, by_hand, seed):
    """Resampling repeats rows, and a calibrated model then looks less calibrated than it is."""
    rng = np.random.default_rng(seed)
    n, n_labels = 600, len(model.labels)
    sure = rng.uniform(0.3, 1, n)
    proba = np.repeat(((1 - sure) / (n_labels - 1))[:, None], n_labels, axis=1)
    proba[:, 0] = sure
    true = np.where(rng.random(n) < sure, 0, 1)
    rivals = dict.fromkeys(by_hand.rivals, np.zeros(n, int))
    texts = tuple(map(str, range(n)))
    rows = replace(by_hand, texts=texts, true=true, proba=proba, none=np.zeros(n), rivals=rivals)
    calibration = scorecard(model, rows, RunFacts((), None, 0, {}))["calibration"]
    low, high = calibration["ece_ci"]
    assert low <= calibration["ece"] <= high


def test_rows_of_an_unknown_label_count_as_errors(model, by_hand):
    """A row that no label can match stays in every denominator."""
    strange = replace(by_hand, true=np.array([0, 0, 1, -1]))
    card = scorecard(model, strange, RunFacts((), None, 0, {}))
    assert card["n_unknown_label"] == 1
    assert card["n_test"] == 4
    assert card["accuracy"] == 0.75
    assert card["recall_weighted"] == 0.75
    all_strange = replace(by_hand, true=np.full(4, -1))
    card = scorecard(model, all_strange, RunFacts((), None, 0, {}))
    assert card["accuracy"] == 0.0
    assert card["calibration"]["brier"] is None


def test_the_decision_rule_changes_no_accuracy(model, by_hand):
    """`accuracy` leaves *none* out: nothing is won by calling hard rows none."""
    never = replace(by_hand, none=np.ones(4))
    card = scorecard(model, never, RunFacts((), None, 0, {}))
    assert card["accuracy"] == 0.75
    assert card["answered_share"] == 0.0
    assert card["accuracy_decided"] is None


def test_out_of_scope_rows_that_look_strange_are_told_apart(model, by_hand):
    perfect = replace(by_hand, none_out_of_scope=np.array([0.8, 0.9, 0.95]))
    card = scorecard(model, perfect, RunFacts((), None, 0, {}))
    assert card["none"]["auroc"] == 1.0
    assert card["none"]["fpr_at_95"] == 0.0
    assert card["none"]["n_oos"] == 3


# --- baselines and details ---------------------------------------------------------------------


def test_flat_sees_exactly_the_rows_that_the_model_ended_with(model, rows, corpus):
    """Defect 2, for the rival: it may not learn from fewer rows than the model."""
    from red_ray.experts import LogisticRegressionExpert

    vectors = FakeEncoder().encode(corpus.test)
    for name, n in (("flat", len(model.example_labels)), ("flat_seed_rows", model.n_seed)):
        expert = LogisticRegressionExpert(len(model.labels))
        expert.fit(model.example_vectors[:n], model.example_labels[:n])
        np.testing.assert_array_equal(rows.rivals[name], expert.score(vectors)[:, :-1].argmax(1))


def test_the_details_add_up(model, trained, rows):
    found = details_of(model, rows)
    assert sum(one["n_test"] for one in found["labels"]) == len(rows.texts)
    assert sum(one["routed_share"] for one in found["experts"]) == pytest.approx(1.0)
    assert all(one["n_noise"] > 0 for one in found["experts"])  # defect 4
    wrong = int((rows.predicted != rows.true).sum())
    assert sum(one["count"] for one in found["confusions"]) == wrong
    histogram = found["confidence_histogram"]
    assert sum(histogram["correct"]) + sum(histogram["wrong"]) == len(rows.texts)
    start, *after = run_details(trained, None)["learning_curve"]
    assert (start["n_train"], start["n_requests"]) == (model.n_seed, 0)
    assert after[-1]["n_train"] == len(model.example_labels)
    json.dumps(found, allow_nan=False)
