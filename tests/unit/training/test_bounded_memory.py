"""Labels and pools of any size: what is held at a time changes no result that matters."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from red_ray.training import router_host
from red_ray.training.router_host import RouterHost
from tests.unit.training.fakes import (
    FakeValidator,
    RecordingFleet,
    accuracy,
    fingerprint,
    labelled,
    train,
    truth,
)

N_LABELS = 12


def trained(corpus, fleet=None, **sections):
    return asyncio.run(train(corpus.job(**sections), FakeValidator(truth(corpus)), fleet=fleet))


@pytest.fixture(scope="module")
def usual(corpus):
    return trained(corpus)


def figures(run):
    """What an iteration says of the pool and of the model."""
    return np.array([(i.mean_uncertainty, i.log_likelihood or 0.0) for i in run.iterations])


@pytest.mark.parametrize(
    ("name", "value"), [("BLOCK_CELLS", 40), ("KEPT_TEXTS", 0), ("KEPT_TEXTS", 100)]
)
def test_blocks_and_ngrams_that_are_not_kept_change_no_bit(corpus, usual, monkeypatch, name, value):
    monkeypatch.setattr(router_host, name, value)
    assert fingerprint(trained(corpus), corpus) == fingerprint(usual, corpus)


@pytest.fixture
def in_parts(monkeypatch):
    """A pool too large to keep, weighed seven texts at a time."""
    monkeypatch.setattr(router_host, "KEPT_CELLS", 0)
    monkeypatch.setattr(router_host, "WEIGHED_CELLS", 7 * N_LABELS + 1)


@pytest.mark.parametrize("gate", [True, False])
def test_a_pool_that_is_weighed_in_parts_is_asked_about_alike(corpus, in_parts, usual, gate):
    router = {"gate": gate, "folds": 3}
    parts = trained(corpus, router=router)
    with pytest.MonkeyPatch.context() as undo:
        undo.setattr(router_host, "KEPT_CELLS", 2**24)
        whole = usual if gate else trained(corpus, router=router)
    assert labelled(parts) == labelled(whole)
    np.testing.assert_allclose(figures(parts), figures(whole), rtol=1e-4)


def test_every_part_of_such_a_pool_is_scored_by_every_expert(corpus, in_parts):
    fleet = RecordingFleet()
    trained(corpus, fleet)
    n_seed, n_pool = len(corpus.texts), len(corpus.pool)
    pool = np.arange(n_seed, n_seed + n_pool)
    for told in fleet.experts:
        scored = np.concatenate(told.scored[: -(-n_pool // 7)])
        assert scored.tolist() == pool.tolist()
        assert max(map(len, told.scored)) == 7


def test_a_router_fitted_on_a_sample_still_speaks_of_every_row(corpus, usual, monkeypatch):
    monkeypatch.setattr(router_host, "MIN_FIT_ROWS", 1)
    monkeypatch.setattr(router_host, "FIT_CELLS", 40 * N_LABELS)
    sampled = trained(corpus)
    none, expected = (run.model.calibration.none for run in (sampled, usual))
    assert len(none) == len(corpus.texts)
    assert np.corrcoef(none, expected)[0, 1] > 0.5  # in the same order
    assert fingerprint(sampled, corpus) != fingerprint(usual, corpus)
    assert accuracy(sampled, corpus) == pytest.approx(accuracy(usual, corpus), abs=0.1)
    assert sampled.estimate.accuracy == pytest.approx(usual.estimate.accuracy, abs=0.1)


def test_rows_seen_in_parts_keep_their_order(corpus, usual, monkeypatch):
    """The same router over the same evidence, whole and in parts: the same of every row."""
    monkeypatch.setattr(router_host, "MIN_FIT_ROWS", 10**6)
    monkeypatch.setattr(router_host, "FIT_CELLS", 3 * N_LABELS)
    parts = trained(corpus)
    seen, expected = parts.model.calibration, usual.model.calibration
    assert (seen.right == expected.right).all()
    np.testing.assert_allclose(seen.none, expected.none, rtol=1e-4)
    np.testing.assert_allclose(seen.label_risk, expected.label_risk, rtol=1e-4, atol=1e-7)


def test_no_more_rows_are_held_back_than_say_something(corpus, monkeypatch):
    """Always the same of the user's; the others are learned from in every fold. Planted questions
    are about rows that are held back, and as many as without a limit."""
    monkeypatch.setattr("red_ray.training.crossfit.HELD_ROWS", 40)
    fleet = RecordingFleet()
    run = trained(corpus, fleet, judge={"gold_share": 0.2})
    n_seed = len(corpus.texts)
    for told in fleet.experts:
        held = [data.folds[:n_seed] >= 0 for data in told.crossfits]
        assert held[0].sum() == 40
        assert all((one == held[0]).all() for one in held)
    assert run.iterations[0].n_gold == round(0.2 * run.iterations[0].n_asked)
    assert len(run.model.calibration.right) == 40


def test_a_pool_text_that_stands_apart_is_taken_for_itself():
    """A slice stands for rows only where they follow each other."""
    from red_ray.config import parse_config

    host = RouterHost(parse_config({"router": {"lexical": False}}), 2)
    vectors = np.eye(6, dtype=np.float32)
    host.load(vectors, ["a"] * 6, ((0, 1),))
    for rows in ([0, 2, 1, 3], [2, 3, 4], [5, 4], [], [3]):
        wanted = np.array(rows, dtype=np.int64)
        assert (host._take(wanted).vectors == vectors[wanted]).all()
    assert np.shares_memory(host._take(np.arange(2, 5)).vectors, vectors)
