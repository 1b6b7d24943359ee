"""Labels of a fine-tuned model: the encoders stay as they are, gate and few experts change."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib

import numpy as np
import pytest

from red_ray import labels
from red_ray.encoding import PairedEncoder
from red_ray.errors import ConfigError
from red_ray.experts import SetFitExpert
from red_ray.labels.placing import MOST
from tests.unit.labels.conftest import HELD, rows_of
from tests.unit.labels.test_changes import accuracy, check_sound, unconcerned
from tests.unit.training.fakes import FakeEncoder, train
from tests.unit.training.test_tuned import SETFIT, FakeTuned, FakeTunedFleet

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
