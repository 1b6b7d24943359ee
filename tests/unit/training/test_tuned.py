"""SetFit experts: what a fine-tuned encoder saw never says how good it is."""

from __future__ import annotations

import asyncio
import hashlib
import json

import numpy as np
import pytest

from red_ray.bundle import load_bundle, save_bundle
from red_ray.encoding import PairedEncoder, TunedWeights, TuningRows
from red_ray.experts import SetFitExpert
from red_ray.training import LocalFleet
from red_ray.training.router_host import RouterHost
from tests.unit.training.fakes import (
    DIM,
    FakeEncoder,
    FakeValidator,
    direction,
    labelled,
    make_corpus,
    train,
    truth,
)

SETFIT = {"expert": {"kind": "setfit"}}
LOOP = {"recalibrate_every": 1}


class Parrot:
    """A fine-tuned encoder that knows by heart what it saw, and nothing of other texts."""

    def __init__(self, weights: TunedWeights) -> None:
        self._known = json.loads(weights.tensors)

    def encode(self, texts):
        return np.stack([np.zeros((0, DIM))] if not texts else [self._vector(t) for t in texts])

    def _vector(self, text):
        said = self._known.get(text)
        return direction(f"label {said}" if said is not None else f"strange {text}")


class ListeningRouter(RouterHost):
    """Keeps what gate and experts said of rows that they had not seen."""

    told: list[tuple[np.ndarray, np.ndarray]]

    def calibrate(self, rows, labels, folds, n_trusted, scores, by_judge=False):
        held = folds >= 0
        self.told.append((scores.gate[held], labels[held]))
        return super().calibrate(rows, labels, folds, n_trusted, scores, by_judge)


def right(told):
    """How often the gate named the label."""
    scores, labels = told
    return float((scores.argmax(axis=1) == labels).mean())


class ParrotFleet(LocalFleet):
    """Tells what each encoder was fine-tuned on."""

    def __init__(self) -> None:
        super().__init__(FakeEncoder(), n_threads=1)
        self.told: list[tuple[np.ndarray, np.ndarray]] = []
        self.router_kind = type("Router", (ListeningRouter,), {"told": self.told})
        self.tuned: list[tuple[str, dict[str, int]]] = []

    async def tune(self, config, rows, name):
        seen = dict(zip(rows.texts, rows.labels.tolist(), strict=True))
        self.tuned.append((name, seen))
        return TunedWeights(json.dumps(seen).encode())

    async def encode_tuned(self, config, texts, weights):
        return Parrot(weights).encode(list(texts))


class FakeTuned(FakeEncoder):
    """A fine-tuned encoder that is better than the plain one on any text."""

    def __init__(self) -> None:
        super().__init__(spread=0.2)


class FakeTunedFleet(ParrotFleet):
    async def encode_tuned(self, config, texts, weights):
        return FakeTuned().encode(texts)


@pytest.fixture(scope="module")
def parrot():
    fleet = ParrotFleet()
    return fleet, asyncio.run(train(make_corpus().job(**SETFIT), fleet=fleet))


def test_an_encoder_for_all_rows_and_one_for_each_fold_without_it(parrot):
    fleet, _ = parrot
    corpus = make_corpus()
    named = {name.replace("_", " ") for name in corpus.names}
    names, seen = zip(*fleet.tuned, strict=True)
    assert names == ("all rows", "fold 1 of 3", "fold 2 of 3", "fold 3 of 3")
    whole, *folds = (set(texts) - named for texts in seen)
    assert whole == set(corpus.texts)
    left_out = [whole - texts for texts in folds]
    assert sorted(text for texts in left_out for text in texts) == sorted(corpus.texts)
    assert all(named <= set(texts) for texts in seen)  # what a label is called is a text of it


def test_what_the_encoder_knows_by_heart_is_worth_nothing_to_the_router(parrot):
    """Defect 15: SetFit validated on its training rows."""
    fleet, _ = parrot
    plain = ParrotFleet()
    asyncio.run(train(make_corpus().job(), fleet=plain))
    assert right(plain.told[0]) > 0.4
    assert right(fleet.told[0]) < 0.2  # of twelve labels


def test_rows_of_the_judge_are_unseen_by_the_encoders_of_their_fold():
    """They come when the encoders are there already; a row of the user stays in its fold."""
    corpus, fleet = make_corpus(), ParrotFleet()
    job = corpus.job(**SETFIT, loop=LOOP)
    trained = asyncio.run(train(job, FakeValidator(truth(corpus)), fleet=fleet))
    assert len(labelled(trained)) > len(corpus.texts)
    first, last = fleet.tuned[:4], fleet.tuned[4:]
    assert [name for name, _ in last] == [name for name, _ in first]
    gained = {text for text, _ in labelled(trained)} - set(corpus.texts)
    assert gained <= set(last[0][1])
    assert not gained & set(first[0][1])
    assert len(fleet.told) > 2
    assert max(map(right, fleet.told)) < 0.2


class StoppingFleet(ParrotFleet):
    """Finds that three of five looks were enough, and keeps what each fine-tuning was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, TuningRows] = {}

    async def tune(self, config, rows, name):
        assert not (rows.watched and self.given), "the watched one comes first, alone"
        self.given[name] = rows
        seen = dict(zip(rows.texts, rows.labels.tolist(), strict=True))
        share = '{"share": "0.6"}' if rows.watched else "{}"
        header = f'{{"__metadata__": {share}}}'.encode()
        body = json.dumps(seen).encode()
        return TunedWeights(len(header).to_bytes(8, "little") + header + body)

    async def encode_tuned(self, config, texts, weights):
        start = 8 + int.from_bytes(weights.tensors[:8], "little")
        return Parrot(TunedWeights(weights.tensors[start:])).encode(list(texts))


def test_the_rows_held_back_first_say_how_long_all_others_are_fine_tuned():
    corpus, fleet = make_corpus(), StoppingFleet()
    job = corpus.job(**SETFIT, setfit={"early_stop": True})
    asyncio.run(train(job, fleet=fleet))
    first = fleet.given.pop("fold 1 of 3")
    texts, labels = first.watched
    assert set(texts).isdisjoint(first.texts)
    assert set(texts) | set(first.texts) >= set(corpus.texts)
    truth_of = dict(zip(corpus.texts, corpus.labels, strict=True))
    assert [corpus.names[label] for label in labels] == [truth_of[text] for text in texts]
    assert (first.share, first.watched is None) == (1.0, False)
    assert {(one.share, one.watched) for one in fleet.given.values()} == {(0.6, None)}
    assert len(fleet.given) == 3
    assert right(fleet.told[0]) < 0.2, "what a text was watched for is not learned"


@pytest.fixture(scope="module")
def model():
    fleet = FakeTunedFleet()
    return asyncio.run(train(make_corpus().job(**SETFIT), fleet=fleet)).model


def assessed(model, corpus):
    pair = PairedEncoder(FakeEncoder(), FakeTuned())
    return model.assess(corpus.test, pair.encode(corpus.test))


def test_experts_look_at_the_tuned_vectors_and_all_else_at_the_plain_ones(model, corpus):
    plain, tuned = FakeEncoder().encode(corpus.test), FakeTuned().encode(corpus.test)
    both = np.hstack([plain, tuned])
    (evidence,) = model.evidence(corpus.test, both)
    np.testing.assert_array_equal(evidence[:, :, 0], model.gate.score(tuned)[:, :-1])
    for subset, expert in zip(model.subsets, model.experts, strict=True):
        assert isinstance(expert, SetFitExpert)
        seen = evidence[:, list(subset), 1]
        np.testing.assert_allclose(seen, expert.score(tuned)[:, :-1], atol=1e-5)
    np.testing.assert_array_equal(model.plain_vectors(both), plain)
    np.testing.assert_array_equal(model.expert_vectors(both), tuned)


def test_a_bundle_holds_the_tuned_weights(model, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(TunedWeights, "read", lambda content: TunedWeights(content))  # no tensors
    bundle_id = save_bundle(model, tmp_path / "bundle", {})
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.bundle_id == bundle_id
    assert loaded.tuned == model.tuned
    before, after = assessed(model, corpus), assessed(loaded, corpus)
    np.testing.assert_array_equal(before.distribution, after.distribution)
    file = tmp_path / "bundle" / "encoder.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == model.tuned.sha256
