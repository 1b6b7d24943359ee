"""Labels of a fine-tuned model: the encoders stay as they are, gate and few experts change."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib

import numpy as np
import pytest

from red_ray import labels
from red_ray.core.text import text_key
from red_ray.encoding import PairedEncoder
from red_ray.errors import ConfigError
from red_ray.experts import SetFitExpert
from red_ray.labels.placing import MOST
from tests.unit.labels.conftest import HELD, rows_of
from tests.unit.labels.test_changes import accuracy, check_sound, unconcerned
from tests.unit.training.fakes import FakeEncoder, train
from tests.unit.training.test_tuned import (
    SETFIT,
    FakeTuned,
    FakeTunedFleet,
    Parrot,
    ParrotFleet,
)

REFIT = importlib.import_module("red_ray.labels.refit")  # the package has a function so called


class FakeFoldEncoder(FakeTuned):
    """As every encoder of the fake fleet; tells how often it was opened."""

    n_opened = 0

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        type(self).n_opened += 1

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def encoders(monkeypatch):
    monkeypatch.setattr(FakeFoldEncoder, "n_opened", 0)
    monkeypatch.setattr(REFIT, "open_encoder", FakeFoldEncoder)


@pytest.fixture(scope="module")
def tuned(corpus):
    pairs = [*zip(corpus.texts, corpus.labels, strict=True)]
    kept = [(text, label) for text, label in pairs if label != HELD]
    job = dataclasses.replace(
        corpus.job(**SETFIT),
        texts=tuple(text for text, _ in kept),
        labels=tuple(label for _, label in kept),
        pool=(),
    )
    return asyncio.run(train(job, fleet=FakeTunedFleet()))


@pytest.fixture
def pair():
    return PairedEncoder(FakeEncoder(), FakeTuned())


def test_a_label_is_added_and_taken_away(tuned, pair, corpus):
    n_rows = len(tuned.model.example_texts)
    added = labels.add(tuned.model, tuned.crossfit, HELD, rows_of(corpus, HELD), encoder=pair)
    check_sound(added, n_rows + 5)
    assert 1 <= len(added.experts) <= MOST
    assert unconcerned(added)
    assert FakeFoldEncoder.n_opened == tuned.model.config.router.folds
    model = added.model
    assert model.tuned == tuned.model.tuned
    assert added.crossfit.encoders == tuned.crossfit.encoders
    assert all(isinstance(one, SetFitExpert) for one in (model.gate, *model.experts))
    assert accuracy(model, corpus, pair, {HELD}) > 0.7
    assert model.example_vectors.shape == (n_rows + 5, FakeEncoder().encode(["a"]).shape[1])
    retired = labels.retire(model, added.crossfit, HELD, encoder=pair)
    assert retired.model.labels == tuned.model.labels


def test_what_is_kept_of_the_folds_is_needed(tuned, pair, corpus):
    bare = dataclasses.replace(tuned.crossfit, encoders=())
    for kept in (bare, None):
        with pytest.raises(ConfigError, match="train again"):
            labels.retire(tuned.model, kept, tuned.model.labels[0], encoder=pair)


def test_the_estimate_rests_on_the_encoders_of_the_folds(tuned, pair, monkeypatch):
    """Encoders that know nothing make held-out scores that are worth nothing."""

    class Blind(FakeFoldEncoder):
        def encode(self, texts):
            rng = np.random.default_rng(0)
            return rng.standard_normal((len(texts), 24)).astype(np.float32)

    name = tuned.model.labels[0]
    seeing = labels.retire(tuned.model, tuned.crossfit, name, encoder=pair)
    monkeypatch.setattr(REFIT, "open_encoder", Blind)
    blind = labels.retire(tuned.model, tuned.crossfit, name, encoder=pair)
    held = blind.crossfit.folds >= 0
    own = blind.model.example_labels[held]

    def right(change):
        return (change.crossfit.gate[held].argmax(axis=1) == own).mean()

    assert right(seeing) > 0.45
    assert right(blind) < 0.3


# --- an encoder that knows by heart what it saw, and nothing else -------------------------------


class ParrotOfFold(Parrot):
    def __init__(self, _, *, tuned) -> None:
        super().__init__(tuned)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def learned(corpus):
    job = dataclasses.replace(corpus.job(**SETFIT), pool=())
    return asyncio.run(train(job, fleet=ParrotFleet()))


@pytest.fixture
def parrots(learned, monkeypatch):
    monkeypatch.setattr(REFIT, "open_encoder", ParrotOfFold)
    return PairedEncoder(FakeEncoder(), Parrot(learned.model.tuned))


def right(kept, model, *names):
    """How often the gate, held back, names one of some labels for their rows."""
    positions = [model.labels.index(name) for name in names]
    rows = np.isin(model.example_labels, positions) & (kept.folds >= 0)
    assert rows.any()
    return np.isin(kept.gate[rows].argmax(axis=1), positions).mean()


def by_text(kept, model):
    return dict(zip(model.example_texts, kept.folds.tolist(), strict=True))


def test_rows_that_a_split_divides_stay_in_the_folds_of_their_encoders(learned, parrots, corpus):
    name, before = "family1_topic04", learned.model
    assert right(learned.crossfit, before, name) <= 0.2
    parts = ("one", "other")
    part_of = {text_key(text): parts[at > 2] for at, text in enumerate(rows_of(corpus, name))}
    change = labels.split(before, learned.crossfit, name, parts, part_of, encoder=parrots)
    assert right(change.crossfit, change.model, *parts) <= 0.2
    old, new = by_text(learned.crossfit, before), by_text(change.crossfit, change.model)
    assert all(fold in (old[text], -1) for text, fold in new.items())


def test_a_part_whose_rows_share_a_fold_keeps_one_to_learn_from(learned, parrots, corpus):
    name, before = "family1_topic04", learned.model
    texts = rows_of(corpus, name)
    folds = by_text(learned.crossfit, before)
    shared = next(f for f in range(3) if sum(folds[text] == f for text in texts) == 2)
    part_of = {text_key(text): ("one", "two")[folds[text] == shared] for text in texts}
    change = labels.split(before, learned.crossfit, name, ("one", "two"), part_of, encoder=parrots)
    two = change.model.example_labels == change.model.labels.index("two")
    assert sorted(change.crossfit.folds[two]) == [-1, shared]


def test_a_label_that_comes_back_is_held_back_as_before(learned, parrots, corpus):
    name, other = "family1_topic04", "family0_topic00"
    gone = labels.retire(learned.model, learned.crossfit, name, encoder=parrots)
    gone = labels.retire(gone.model, gone.crossfit, other, encoder=parrots)
    texts = rows_of(corpus, name)
    back = labels.add(gone.model, gone.crossfit, name, texts, encoder=parrots)
    assert right(back.crossfit, back.model, name) <= 0.2
    old, new = by_text(learned.crossfit, learned.model), by_text(back.crossfit, back.model)
    assert {text: new[text] for text in texts} == {text: old[text] for text in texts}
    assert sorted(back.crossfit.gone) == sorted(map(text_key, rows_of(corpus, other)))


def test_what_is_new_to_the_encoders_is_held_back_in_any_fold(learned, parrots, corpus):
    texts = [text for text, label in corpus.hidden.items() if label == HELD]
    change = labels.add(learned.model, learned.crossfit, "new", texts, encoder=parrots)
    folds = by_text(change.crossfit, change.model)
    assert sorted(folds[text] for text in texts) == [0, 0, 1, 1, 2, 2]
