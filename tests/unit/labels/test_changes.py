"""A change of labels touches the experts concerned, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from red_ray import labels
from red_ray.core.router import top_labels
from red_ray.core.text import text_key
from red_ray.errors import ConfigError, DataError
from red_ray.labels import Examples
from red_ray.labels.placing import MOST
from red_ray.model import expert_name
from tests.unit.labels.conftest import HELD, halves, rows_of, trained_without


def bits(expert):
    return expert.weights.tobytes() + expert.bias.tobytes()


def by_names(model):
    """The bits of each expert, by the names of its labels."""
    pairs = zip(model.subsets, model.experts, strict=True)
    return {tuple(model.labels[i] for i in subset): bits(expert) for subset, expert in pairs}


def unconcerned(change):
    refitted = set(change.experts)
    names = (expert_name(position) for position in range(len(change.model.subsets)))
    pairs = zip(names, by_names(change.model).items(), strict=True)
    return dict(one for name, one in pairs if name not in refitted)


def accuracy(model, corpus, encoder, names=None):
    pairs = zip(corpus.test, corpus.test_labels, strict=True)
    rows = [(text, label) for text, label in pairs if names is None or label in names]
    texts = [text for text, _ in rows]
    best = top_labels(model.assess(texts, encoder.encode(texts)).label_proba, 1)[:, 0]
    return np.mean([model.labels[i] == label for i, (_, label) in zip(best, rows, strict=True)])


def distribution(model, corpus, encoder):
    return model.assess(corpus.test, encoder.encode(corpus.test)).distribution


def check_sound(change, n_rows):
    """Every label has one expert and some rows, and what is kept fits the model."""
    model, kept = change.model, change.crossfit
    assert sorted(i for subset in model.subsets for i in subset) == [*range(len(model.labels))]
    assert len(model.experts) == len(model.subsets) == len(model.noise_counts)
    assert len(model.descriptions) == len(model.labels)
    assert sorted(set(model.example_labels.tolist())) == [*range(len(model.labels))]
    assert len(model.example_texts) == len(model.example_vectors) == n_rows
    assert kept.gate.shape == (n_rows, len(model.labels))
    shapes = [(n_rows, len(subset) + 1) for subset in model.subsets]
    assert [scores.shape for scores in kept.experts] == shapes
    assert len(kept.refused.of_expert) == len(model.subsets)
    assert change.gate
    assert len(change.experts) <= MOST


def alone(model):
    """The model with a single row of its last label."""
    kept = slice(0, int(np.flatnonzero(model.example_labels == 11)[0]) + 1)
    return dataclasses.replace(
        model, example_texts=model.example_texts[kept], example_labels=model.example_labels[kept]
    )


@pytest.fixture(scope="module")
def added(without, corpus, encoder):
    texts = rows_of(corpus, HELD)
    return labels.add(without.model, without.crossfit, HELD, texts, encoder=encoder)


def test_an_added_label_is_known(added, without, full, corpus, encoder):
    check_sound(added, 60)
    assert added.model.labels == (*without.model.labels, HELD)
    alone = accuracy(added.model, corpus, encoder, {HELD})
    assert alone >= accuracy(full.model, corpus, encoder, {HELD}) - 0.25
    everything = accuracy(added.model, corpus, encoder)
    assert everything > accuracy(without.model, corpus, encoder)
    assert everything >= accuracy(full.model, corpus, encoder) - 0.05


def test_experts_that_are_not_concerned_keep_their_bits(added, without):
    left = unconcerned(added)
    assert left
    before = by_names(without.model)
    assert all(before[names] == content for names, content in left.items())
    assert len(left) + len(added.experts) == len(added.model.subsets)


def test_the_users_examples_count_as_the_users(added, without, corpus):
    assert added.model.n_seed == without.model.n_seed + 5
    first = added.model.example_texts[without.model.n_seed : added.model.n_seed]
    assert list(first) == rows_of(corpus, HELD)


def test_those_of_a_judge_stand_behind_them(asked, encoder):
    model = asked.model
    texts = ["please family9 topic99 one", "today family9 topic99 two"]
    change = labels.add(model, asked.crossfit, "new", texts, judged=True, encoder=encoder)
    assert change.model.n_seed == model.n_seed
    assert change.model.example_texts[-2:] == tuple(texts)
    assert len(change.model.calibration.right) == len(model.calibration.right)


def test_the_same_change_gives_the_same_bits(added, without, corpus, encoder):
    texts = rows_of(corpus, HELD)
    again = labels.add(without.model, without.crossfit, HELD, texts, encoder=encoder)
    assert by_names(again.model) == by_names(added.model)
    assert bits(again.model.gate) == bits(added.model.gate)
    assert again.model.router.weights.tobytes() == added.model.router.weights.tobytes()


def test_without_held_out_scores_all_is_cross_fitted_and_said(added, without, corpus, encoder):
    texts = rows_of(corpus, HELD)
    change = labels.add(without.model, None, HELD, texts, encoder=encoder)
    assert change.experts == added.experts
    assert unconcerned(change) == unconcerned(added)
    assert any("cross-fitted anew" in note for note in change.notes)
    assert not any("cross-fitted anew" in note for note in added.notes)
    # The held-out scores are those that training kept, but for the noise that lacks the label.
    assert change.estimate.accuracy == pytest.approx(added.estimate.accuracy, abs=0.06)


def test_one_example_is_enough(without, corpus, encoder):
    text = rows_of(corpus, HELD)[0]
    change = labels.add(without.model, without.crossfit, HELD, [text, text], encoder=encoder)
    check_sound(change, 56)
    assert change.crossfit.folds[without.model.n_seed] == -1
    vectors = encoder.encode([text])
    assert change.model.assess([text], vectors).label_proba.argmax() == 11


def test_an_expert_that_grows_to_twice_its_size_becomes_two(without, encoder):
    model, kept = without.model, without.crossfit
    for number in range(12):
        texts = [f"please family1 topic{50 + number} n{n}" for n in range(2)]
        change = labels.add(model, kept, f"more{number}", texts, encoder=encoder)
        model, kept = change.model, change.crossfit
        check_sound(change, 55 + 2 * (number + 1))
    assert max(len(subset) for subset in model.subsets) < 8
    assert len(model.subsets) > len(without.model.subsets)


def test_merged_labels_are_one(full, corpus, encoder):
    names = ["family0_topic00", "family2_topic08"]  # of two experts
    change = labels.merge(full.model, full.crossfit, names, "both", encoder=encoder)
    check_sound(change, 60)
    assert change.model.labels[0] == "both"
    assert "family2_topic08" not in change.model.labels
    assert (change.model.example_labels == 0).sum() == 10
    before = by_names(full.model)
    assert all(before[subset] == content for subset, content in unconcerned(change).items())
    best = change.model.assess(corpus.test, encoder.encode(corpus.test)).label_proba.argmax(axis=1)
    merged = [i for i, label in enumerate(corpus.test_labels) if label in names]
    assert (best[merged] == 0).mean() > 0.5


def test_labels_merge_into_one_of_them(full, encoder):
    names = ["family0_topic00", "family0_topic01"]
    change = labels.merge(full.model, full.crossfit, names, names[1], encoder=encoder)
    assert change.model.labels[0] == names[1]
    assert len(change.model.labels) == 11
    check_sound(change, 60)


def test_a_split_label_is_two(full, corpus, encoder):
    name = "family1_topic04"
    part_of = halves(corpus, name, name, "other")
    change = labels.split(
        full.model, full.crossfit, name, (name, "other"), part_of, encoder=encoder
    )
    check_sound(change, 60)
    assert change.model.labels == (*full.model.labels, "other")
    assert np.bincount(change.model.example_labels)[[4, 12]].tolist() == [3, 2]
    assert change.model.n_seed == 60
    before = by_names(full.model)
    assert all(before[subset] == content for subset, content in unconcerned(change).items())


def test_every_row_that_a_split_holds_back_leaves_one_of_its_label(full, corpus, encoder):
    name = "family1_topic04"
    part_of = halves(corpus, name, "one", "other")
    change = labels.split(
        full.model, full.crossfit, name, ("one", "other"), part_of, encoder=encoder
    )
    for label in (4, 12):
        mine = change.model.example_labels == label
        folds = change.crossfit.folds[mine]
        assert all((folds != fold).any() for fold in folds if fold >= 0)


def test_rows_of_no_part_leave(full, corpus, encoder):
    name = "family1_topic04"
    part_of = halves(corpus, name, "one", "other")
    part_of.popitem()
    change = labels.split(
        full.model, full.crossfit, name, ("one", "other"), part_of, encoder=encoder
    )
    check_sound(change, 59)
    assert change.notes == (f"1 row of {name!r} left: no part was named for them",)


def test_rows_that_a_judge_split_are_the_judges(full, corpus, encoder):
    name = "family1_topic04"
    part_of = halves(corpus, name, "one", "other")
    change = labels.split(
        full.model, full.crossfit, name, ("one", "other"), part_of, judged=True, encoder=encoder
    )
    check_sound(change, 60)
    assert change.model.n_seed == 55
    assert set(change.model.example_labels[55:].tolist()) == {4, 12}


def test_a_retired_label_is_gone_with_its_rows(full, corpus, encoder):
    name = "family1_topic04"
    change = labels.retire(full.model, full.crossfit, name, encoder=encoder)
    check_sound(change, 55)
    assert name not in change.model.labels
    assert set(rows_of(corpus, name)).isdisjoint(change.model.example_texts)
    before = by_names(full.model)
    assert all(before[subset] == content for subset, content in unconcerned(change).items())
    others = set(change.model.labels)
    retrained = trained_without(corpus, name).model
    assert accuracy(change.model, corpus, encoder, others) >= (
        accuracy(retrained, corpus, encoder, others) - 0.05
    )


def test_its_rows_may_stay_as_noise(full, corpus, encoder):
    name = "family1_topic04"
    plain = labels.retire(full.model, full.crossfit, name, encoder=encoder)
    kept = labels.retire(full.model, full.crossfit, name, keep_as_none=True, encoder=encoder)
    assert kept.crossfit.refused.texts == tuple(rows_of(corpus, name))
    position = int(kept.experts[0].removeprefix("expert-"))
    assert kept.model.noise_counts[position] == plain.model.noise_counts[position] + 5
    vectors = encoder.encode(rows_of(corpus, name))
    as_noise = kept.model.experts[position].score(vectors)[:, -1]
    assert (as_noise > plain.model.experts[position].score(vectors)[:, -1]).all()


def in_sample(change, encoder, rows):
    """Of the experts that were not refitted: whether they scored some rows as if these were new."""
    model, kept = change.model, change.crossfit
    left = [p for p in range(len(model.subsets)) if expert_name(p) not in change.experts]
    assert left
    vectors = encoder.encode([model.example_texts[row] for row in rows])
    return [np.allclose(kept.experts[p][rows], model.experts[p].score(vectors)) for p in left]


def test_rows_that_come_back_are_held_back_from_the_experts_that_learned_them(
    full, without, corpus, encoder
):
    texts = rows_of(corpus, HELD)
    fresh = labels.add(without.model, without.crossfit, HELD, texts, encoder=encoder)
    assert all(in_sample(fresh, encoder, range(55, 60)))  # to them they are new
    gone = labels.retire(full.model, full.crossfit, HELD, encoder=encoder)
    assert set(gone.crossfit.gone) == set(map(text_key, texts))
    later = labels.retire(gone.model, gone.crossfit, "family0_topic00", encoder=encoder)
    back = labels.add(later.model, later.crossfit, HELD, texts, encoder=encoder)
    assert not any(in_sample(back, encoder, range(50, 55)))
    assert set(map(text_key, texts)).isdisjoint(back.crossfit.gone)
    before = by_names(later.model)
    assert all(before[names] == content for names, content in unconcerned(back).items())


def test_a_text_that_a_judge_refused_is_held_back_from_the_experts_that_learned_it(asked, encoder):
    model, kept = asked.model, asked.crossfit
    checked = 0
    for position, theirs in enumerate(kept.refused.of_expert):
        texts = [kept.refused.texts[one] for one in theirs]
        change = labels.add(model, kept, "new", [*texts, "strange family9"], encoder=encoder)
        if texts and expert_name(position) not in change.experts:
            checked += 1
            rows = [change.model.example_texts.index(text) for text in texts]
            scores = change.model.experts[position].score(encoder.encode(texts))
            assert not np.allclose(change.crossfit.experts[position][rows], scores)
    assert checked


def test_an_expert_without_labels_goes(corpus, encoder):
    trained = trained_without(corpus, partition={"subset_size": 2})
    model, kept = trained.model, trained.crossfit
    for name in [model.labels[label] for label in model.subsets[0]]:
        change = labels.retire(model, kept, name, encoder=encoder)
        model, kept = change.model, change.crossfit
    check_sound(change, 50)
    # The label that was left alone stayed so only while no near expert had room.
    assert len(model.subsets) == len(trained.model.subsets) - 1


def test_a_label_that_is_left_alone_joins_a_near_expert_with_room(corpus, encoder):
    trained = trained_without(corpus, HELD, partition={"subset_size": 4})
    model, kept = trained.model, trained.crossfit
    small = next(subset for subset in model.subsets if len(subset) == 3)
    names = [model.labels[label] for label in small]
    change = labels.retire(model, kept, names[0], encoder=encoder)
    other = next(subset for subset in model.subsets if len(subset) == 4)
    gone = model.labels[other[0]]
    change = labels.retire(change.model, change.crossfit, gone, encoder=encoder)
    change = labels.retire(change.model, change.crossfit, names[1], encoder=encoder)
    check_sound(change, 40)
    assert all(len(subset) > 1 for subset in change.model.subsets)


def test_a_renamed_label_answers_the_same(full, corpus, encoder):
    change = labels.rename(full.model, full.crossfit, "family1_topic04", "zebra")
    assert change.model.labels[4] == "zebra"
    assert change.experts == ()
    assert not change.gate
    before = distribution(full.model, corpus, encoder)
    assert distribution(change.model, corpus, encoder).tobytes() == before.tobytes()


def test_named_experts_are_refitted_with_more_rows(full, corpus, encoder):
    more = Examples(corpus.test[:2], corpus.test_labels[:2])
    change = labels.refit(full.model, full.crossfit, [2], examples=more, encoder=encoder)
    check_sound(change, 62)
    home = next(p for p, subset in enumerate(full.model.subsets) if 0 in subset)
    assert set(change.experts) == {expert_name(2), expert_name(home)}
    before = by_names(full.model)
    assert all(before[subset] == content for subset, content in unconcerned(change).items())
    assert change.effect.n_rows > 0


def test_a_text_teaches_once(full, corpus, encoder):
    more = Examples((corpus.test[0], corpus.test[0].upper()), (corpus.names[0],) * 2)
    change = labels.refit(full.model, full.crossfit, [], examples=more, encoder=encoder)
    check_sound(change, 61)
    assert change.model.example_labels[60] == 0


def test_a_refitted_expert_learns_labelled_rows_alone(full, corpus, encoder):
    """Of a run whose experts had learned what a judge wrote; the others keep what they have."""
    taught = dataclasses.replace(full.model, written_counts=(4, 5, 6))
    change = labels.refit(taught, full.crossfit, [1], encoder=encoder)
    assert change.model.written_counts == (4, 0, 6)
    assert any("learned labelled rows alone" in note for note in change.notes)
    everyone = labels.refit(taught, full.crossfit, [0, 1, 2], encoder=encoder)
    assert everyone.model.written_counts == ()
    plain = labels.refit(full.model, full.crossfit, [1], encoder=encoder)
    assert plain.model.written_counts == ()
    assert not any("judge" in note for note in plain.notes)
    gone = labels.merge(taught, full.crossfit, corpus.names[:2], corpus.names[0], encoder=encoder)
    assert len(gone.model.written_counts) == len(gone.model.subsets)


def test_experts_refitted_on_the_same_rows_are_the_same(full, encoder):
    change = labels.refit(full.model, full.crossfit, [1], encoder=encoder)
    assert by_names(change.model) == by_names(full.model)
    assert change.estimate.accuracy == pytest.approx(full.estimate.accuracy)
    assert change.effect.regressions == ()


def test_what_a_judge_refused_stays_noise(asked, corpus, encoder):
    refused = asked.crossfit.refused
    assert refused.texts
    everyone = range(len(asked.model.subsets))
    change = labels.refit(asked.model, asked.crossfit, everyone, encoder=encoder)
    assert change.model.noise_counts == asked.model.noise_counts
    assert by_names(change.model) == by_names(asked.model)


def test_a_refused_text_that_becomes_an_example_is_noise_no_more(asked, encoder):
    text = asked.crossfit.refused.texts[0]
    change = labels.add(asked.model, asked.crossfit, "new", [text, f"{text} n99"], encoder=encoder)
    assert 0 not in {one for theirs in change.crossfit.refused.of_expert for one in theirs}
    assert change.model.assess([text], encoder.encode([text])).label_proba.argmax() == 12


@pytest.mark.parametrize(
    "overrides",
    [
        {"router": {"gate": False}},
        {"router": {"lexical": False}},
        {"expert": {"kind": "random_forest"}},
        {"noise": {"factor": 1.0}},
    ],
)
def test_other_configurations_change_too(corpus, encoder, monkeypatch, overrides):
    monkeypatch.setattr("red_ray.experts.forest.N_TREES", 10)
    trained = trained_without(corpus, HELD, **overrides)
    texts = rows_of(corpus, HELD)
    change = labels.add(trained.model, trained.crossfit, HELD, texts, encoder=encoder)
    assert change.gate == ("gate" not in overrides.get("router", {}))
    assert (change.crossfit.gate is not None) == change.gate
    assert accuracy(change.model, corpus, encoder, {HELD}) >= 0.5
    left = len(change.model.subsets) - len(change.experts)
    same = [one for one in change.model.experts if one in trained.model.experts]
    assert len(same) == left


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, k: labels.add(m, k, " ", ["x"]), ConfigError, "a name that is not empty"),
        (lambda m, k: labels.add(m, k, m.labels[3], ["x"]), DataError, "has a label"),
        (lambda m, k: labels.add(m, k, " None", ["x"]), ConfigError, "says that no label fits"),
        (
            lambda m, k: labels.rename(m, k, m.labels[0], "none_of_these"),
            ConfigError,
            "'none_of_these' says that no label fits",
        ),
        (lambda m, k: labels.add(m, k, "new", []), DataError, "at least one example"),
        (
            lambda m, k: labels.add(m, k, "new", [m.example_texts[0].upper()]),
            DataError,
            "is a row of the model already, the first of the label 'family0_topic00'",
        ),
        (lambda m, k: labels.merge(m, k, [m.labels[0]], "x"), ConfigError, "two labels or more"),
        (lambda m, k: labels.merge(m, k, [m.labels[0]] * 2, "x"), ConfigError, "each once"),
        (
            lambda m, k: labels.merge(m, k, m.labels[:2], m.labels[5]),
            DataError,
            "has a label 'family1_topic05' already",
        ),
        (lambda m, k: labels.merge(m, k, m.labels, "x"), DataError, "would leave 1"),
        (
            lambda m, k: labels.split(m, k, m.labels[0], ("a", "a"), {}),
            ConfigError,
            "two different names",
        ),
        (
            lambda m, k: labels.split(m, k, m.labels[0], ("a", "b"), {}),
            DataError,
            "no row of the model goes to 'a'",
        ),
        (lambda m, k: labels.retire(m, k, "famly0_topic00"), DataError, "did you mean"),
        (lambda m, k: labels.retire(m, k, "?"), DataError, "but 12 others"),
        (lambda m, k: labels.rename(m, k, m.labels[0], m.labels[1]), DataError, "already"),
        (lambda m, k: labels.refit(m, k, [9]), DataError, "no expert at position 9"),
        (
            lambda m, k: labels.refit(m, k, [0], examples=Examples(("x",), ("y",))),
            DataError,
            "add it first",
        ),
        (
            lambda m, k: labels.refit(
                m, k, [0], examples=Examples((f"{m.example_texts[0]} ",), (m.labels[1],))
            ),
            DataError,
            "is a row of the model already, the first of the label 'family0_topic00'",
        ),
        (
            lambda m, k: labels.refit(m, k, [0], examples=Examples(("x", "X "), m.labels[:2])),
            DataError,
            "1 of the examples stand there under another label, too",
        ),
        (
            lambda m, k: labels.split(alone(m), k, "family2_topic11", ("a", "b"), {}),
            DataError,
            "has one row of 'family2_topic11'",
        ),
    ],
)
def test_mistakes(full, encoder, call, error, words):
    model = dataclasses.replace(full.model, encoder=encoder)
    with pytest.raises(error, match=words.replace("?", r"\?")):
        call(model, full.crossfit)


def test_a_name_that_differs_by_capitals_alone_is_taken_and_told(full, corpus, encoder):
    name, loud = corpus.names[0], corpus.names[0].upper()
    told = f"the labels {loud!r} and {name!r} differ only by capitals: if they are one, merge them"
    added = labels.add(full.model, full.crossfit, loud, ["one", "two"], encoder=encoder)
    renamed = labels.rename(full.model, full.crossfit, corpus.names[1], loud)
    assert added.notes == renamed.notes == (told,)
    # Its own old name is none beside it.
    assert labels.rename(full.model, full.crossfit, name, loud).notes == ()
