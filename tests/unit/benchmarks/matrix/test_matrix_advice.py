"""Advice by rule, before and after, and the questions of the seed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.matrix import intervals
from benchmarks.matrix.advice import RULES
from benchmarks.matrix.history import best_epoch
from benchmarks.matrix.overview import overview
from benchmarks.matrix.results import read_matrix
from tests.unit.benchmarks.matrix.planted import Planted, exactly

NAMES = ("Qwen zero", "Qwen few", "Qwen LoRA", "BERT", "RED speed", "flat")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 1000)


def curve(*accuracies, untrained=0.1):
    """As a training writes it: first the model that came."""
    return [
        {"epoch": 0, "select_loss": 1 - untrained, "select_accuracy": untrained},
        *(
            {"epoch": at, "train_loss": 1 / at, "select_loss": 1 - one, "select_accuracy": one}
            for at, one in enumerate(accuracies, 1)
        ),
    ]


def plant(folder, rights, seeds=(0, 1), n=300, **more):
    planted = Planted(folder, tuple(rights), seeds=seeds)
    for at, (name, right) in enumerate(rights.items()):
        for seed in seeds:
            hit = np.random.default_rng([at, seed]).permutation(exactly(round(right * n), n))
            planted.cell(name, hit, seed=seed, n=n, **more.get(name.replace(" ", "_"), {}))
    return planted


def told(folder):
    return {(one.rule, one.column) for one in overview(read_matrix(folder)).advice}


def test_no_gain_over_the_base(tmp_path):
    plant(tmp_path, {"Qwen zero": 0.7, "Qwen few": 0.7, "Qwen LoRA": 0.9})
    found = overview(read_matrix(tmp_path))
    assert {(one.rule, one.column) for one in found.advice} == {("no_gain", "Qwen few")}
    lora = next(one for one in found.before_after if one.column == "Qwen LoRA")
    assert lora.pair.difference.value == pytest.approx(0.2, abs=0.01)
    assert lora.pair.difference.interval[0] > 0.1


def test_losing_to_the_base_is_said(tmp_path):
    plant(tmp_path, {"Qwen zero": 0.9, "Qwen few": 0.6})
    (one,) = overview(read_matrix(tmp_path)).advice
    assert one.sentence.startswith("Qwen few loses to its base Qwen zero on sst2: −30.0 points (−")
    assert "other examples" in one.sentence


def test_one_sided_before_and_after(tmp_path):
    planted = plant(tmp_path, {"Qwen zero": 0.9, "Qwen LoRA": 0.9})
    for seed in (0, 1):
        planted.cell("Qwen LoRA", 0.0, seed=seed, n=300, answered=np.ones(300, int))
    found = overview(read_matrix(tmp_path))
    (change,) = found.before_after
    assert (change.after.label, change.after.surplus) == ("yes", 0.5)
    assert change.before.surplus < 0.1
    assert change.after.gap == 1.0
    assert ("one_sided", "Qwen LoRA") in told(tmp_path)
    assert "'yes'" in next(one.sentence for one in found.advice if one.rule == "one_sided")


level = curve(0.5, 0.5, 0.5)
for at, entry in enumerate(level):
    entry["select_loss"] = 1 - 0.1 * at  # so that the last epoch is the one that was kept


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        (curve(0.6, 0.7, 0.8), "still_improving"),
        (curve(0.8, 0.7, 0.75), "overfits"),
        (curve(0.6, 0.8, 0.7), None),
        (curve(0.6, 0.8, 0.7, untrained=0.9), None),
        (curve(0.6, 0.7, 0.8, untrained=0.9), None),
        (level, None),
        (curve(0.8), None),
        ([], None),
    ],
)
def test_epochs(tmp_path, history, rule):
    plant(tmp_path, {"BERT": 0.9}, BERT={"history": history})
    assert told(tmp_path) == ({(rule, "BERT")} if rule else set())


def test_the_best_epoch_of_equal_ones_has_the_least_loss():
    history = curve(0.7, 0.8, 0.8)
    assert best_epoch(history) == 2
    history[3]["select_loss"] = 0.1
    assert best_epoch(history) == 3
    assert best_epoch([{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.5}]) is None


def test_answers_that_cannot_be_read_have_a_remedy(tmp_path):
    planted = plant(tmp_path, {"Qwen zero": 0.9})
    for seed in (0, 1):
        planted.cell("Qwen zero", 0.9, seed=seed, n=300, unreadable=range(30))
    assert told(tmp_path) == {("unreadable", "Qwen zero")}


def test_stand_ins_are_no_part_of_an_answer_or_an_advice(tmp_path, monkeypatch):
    from tests.unit.benchmarks.matrix import planted as builder

    tiny = {name: builder.METHODS[name] | {"stand_in": True} for name in ("Qwen LoRA", "Qwen zero")}
    monkeypatch.setattr(builder, "METHODS", builder.METHODS | tiny)
    plant(tmp_path, {"Qwen zero": 0.5, "Qwen LoRA": 0.5, "BERT": 0.9, "flat": 0.8})
    found = overview(read_matrix(tmp_path))
    match, _, _, efficient, struggle, *_ = found.questions
    assert match.answer == "cannot be said: no column but stand-ins has the method lora."
    assert struggle.answer.startswith("cannot be said: it takes a column of a language model")
    assert "Qwen" not in " ".join([efficient.answer, *efficient.sentences])
    assert found.advice == ()
    assert {one.column for one in found.before_after} == {"Qwen LoRA"}


def test_a_label_of_five_rows_that_are_all_lost_is_not_surely_worse(tmp_path):
    """A sign test gives 1 in 32; the resampled rows have no spread at all."""
    planted = Planted(tmp_path, ("Qwen zero", "BERT"))
    true = np.repeat([0, 1, 2], [5, 100, 100])
    for seed in (0, 1, 2):
        more = {"true": true, "labels": ("rare", "some", "many"), "seed": seed}
        planted.cell("BERT", np.ones(205, bool), **more)
        planted.cell("Qwen zero", true != 0, **more)
    struggle = overview(read_matrix(tmp_path)).questions[4]
    assert struggle.answer.startswith("cannot be said: of no pair")
    assert (
        "recall of 'rare' −100.0 points (p = 0.094, corrected for 3 labels)"
        in (struggle.sentences[0])
    )


def test_every_rule_is_told():
    assert set(RULES) == {*("no_gain", "one_sided", "unreadable", "still_improving", "overfits")}


def test_questions_are_answered_in_figures(tmp_path):
    plant(
        tmp_path,
        {
            "Qwen zero": 0.6,
            "Qwen few": 0.65,
            "Qwen LoRA": 0.95,
            "BERT": 0.9,
            "RED speed": 0.8,
            "flat": 0.7,
        },
        seeds=(0, 1, 2),
        Qwen_few={"n_parameters": 2_000_000},
    )
    match, few, size, efficient, struggle, red = overview(read_matrix(tmp_path)).questions
    assert match.answer == "Of 1 comparison: within 2 points or better in 1."
    assert "Qwen LoRA against BERT: +5.0 points (+" in match.sentences[0]
    assert few.answer == "Of 1 comparison: short by more than 2 points in 1."
    assert size.answer.startswith("cannot be said: no two language models of different size")
    assert "lowest median latency" in " ".join(efficient.sentences)
    assert struggle.answer.startswith("Most of all at these labels: ")
    assert "Qwen zero against BERT: wrong alone on " in " ".join(struggle.sentences)
    assert red.answer == "Of 2 comparisons: R.E.D. is better in 1, R.E.D. is worse in 1."


def test_questions_say_what_cannot_be_said(tmp_path):
    planted = plant(tmp_path, {"flat": 0.8, "Qwen LoRA": 0.8, "BERT": 0.8}, seeds=(0,))
    planted.hole("BERT", "out_of_memory", "took 9 GB")
    found = overview(read_matrix(tmp_path)).questions
    assert len(found) == 5  # R.E.D. is no column here
    match, few, *_ = found
    assert match.answer == "cannot be said: of 1 comparison: holes in 1."
    assert "BERT is a hole (out of memory: took 9 GB)" in match.sentences[0]
    assert few.answer == "cannot be said: no column but stand-ins has the method few_shot."


def test_an_open_interval_is_no_answer(tmp_path):
    plant(tmp_path, {"Qwen LoRA": 0.8, "BERT": 0.8}, n=60)
    match, *_ = overview(read_matrix(tmp_path)).questions
    assert match.answer == "cannot be said: of 1 comparison: left open by the interval in 1."


def test_sizes_are_compared_within_a_method(tmp_path, monkeypatch):
    from tests.unit.benchmarks.matrix import planted as builder

    more = {"Gemma zero": {"method": "zero_shot", "model": "gemma-2b"}}
    monkeypatch.setattr(builder, "METHODS", builder.METHODS | more)
    plant(
        tmp_path,
        {"Qwen zero": 0.6, "Gemma zero": 0.85},
        Qwen_zero={"n_parameters": 494_000_000},
        Gemma_zero={"n_parameters": 2_506_000_000},
    )
    size = overview(read_matrix(tmp_path)).questions[2]
    assert size.answer == "Of 1 comparison: the larger is better in 1."
    assert "2,506 M against 494 M parameters" in size.sentences[0]
