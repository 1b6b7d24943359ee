"""Held-out scores of a run: given back near enough, and never those of another model."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import numpy as np
import pytest

from red_ray import crossfit_file
from red_ray.crossfit_file import NAME, load_crossfit, save_crossfit, save_encoders
from red_ray.encoding import TunedWeights
from red_ray.training import crossfit
from tests.unit.training.fakes import FakeValidator, train, truth


@pytest.fixture(scope="module")
def trained(corpus):
    job = corpus.job(loop={"max_iterations": 1}, judge={"top_k": 1})
    return asyncio.run(train(job, FakeValidator(truth(corpus))))


def test_what_is_kept_comes_back(trained, tmp_path):
    kept = trained.crossfit
    assert save_crossfit(tmp_path, trained.model, kept)
    found = load_crossfit(tmp_path, trained.model)
    held = kept.folds >= 0
    assert found.folds.tolist() == kept.folds.tolist()
    np.testing.assert_allclose(found.gate[held], kept.gate[held], rtol=1e-3, atol=1e-3)
    for one, other in zip(found.experts, kept.experts, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one[held], other[held], rtol=1e-3, atol=1e-3)
    assert kept.refused.texts
    assert found.refused.texts == kept.refused.texts
    assert found.refused.of_expert == kept.refused.of_expert
    assert found.refused.vectors.tobytes() == kept.refused.vectors.tobytes()


def test_what_left_is_known_when_it_comes_back(trained, tmp_path):
    save_crossfit(tmp_path, trained.model, trained.crossfit)
    assert load_crossfit(tmp_path, trained.model).gone == {}
    gone = {"a" * 64: 2, "b" * 64: -1}
    save_crossfit(tmp_path, trained.model, dataclasses.replace(trained.crossfit, gone=gone))
    assert load_crossfit(tmp_path, trained.model).gone == gone


def test_a_model_without_a_gate_has_none_here(trained, tmp_path):
    kept = dataclasses.replace(trained.crossfit, gate=None)
    save_crossfit(tmp_path, trained.model, kept)
    assert load_crossfit(tmp_path, trained.model).gate is None


def test_another_models_scores_are_no_scores(trained, tmp_path):
    save_crossfit(tmp_path, trained.model, trained.crossfit)
    labels = ("other", *trained.model.labels[1:])
    assert load_crossfit(tmp_path, dataclasses.replace(trained.model, labels=labels)) is None
    # Thresholds have no say.
    same = dataclasses.replace(trained.model, bundle_id="another", promise=None)
    assert load_crossfit(tmp_path, same) is not None


def test_what_cannot_be_read_is_worked_out_again(trained, tmp_path):
    assert load_crossfit(tmp_path, trained.model) is None
    save_crossfit(tmp_path, trained.model, trained.crossfit)
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: len(content) // 2])
    assert load_crossfit(tmp_path, trained.model) is None


def test_encoders_of_the_folds_are_kept_beside_it(trained, tmp_path):
    import torch
    from safetensors.torch import save

    encoders = tuple(TunedWeights(save({"a": torch.full((2,), n)})) for n in (1.0, 2.0))
    kept = dataclasses.replace(trained.crossfit, encoders=encoders)
    save_encoders(tmp_path, encoders)
    save_crossfit(tmp_path, trained.model, kept)
    assert load_crossfit(tmp_path, trained.model).encoders == encoders
    for file in (tmp_path / "encoders").iterdir():
        file.unlink()
    assert load_crossfit(tmp_path, trained.model) is None  # without them it is worth nothing
    save_encoders(tmp_path, ())
    assert not (tmp_path / "encoders").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *[("encoders", told) for told in ("5", "{}", '"ab"', "null", "[5]", '["ab"]', '["../x"]')],
        *[("refused_texts", told) for told in ("5", "null", "{")],
        *[("refused_of", told) for told in ("5", "[5]", "null")],
    ],
)
def test_what_it_says_of_itself_may_be_anything(trained, tmp_path, monkeypatch, name, told):
    about = crossfit_file._about(trained.model, trained.crossfit) | {name: told}
    monkeypatch.setattr(crossfit_file, "_about", lambda *_: about)
    save_crossfit(tmp_path, trained.model, trained.crossfit)
    assert load_crossfit(tmp_path, trained.model) is None


def test_no_path_is_made_of_a_name_that_is_no_hash(trained, tmp_path, monkeypatch):
    """It would be read, wherever it leads, before its hash is looked at."""
    read = []
    monkeypatch.setattr(crossfit_file.Path, "read_bytes", lambda path: read.append(path) or b"")
    about = crossfit_file._about(trained.model, trained.crossfit)
    for name, n in (("../../x", 0), ("a" * 64, 1)):
        told = about | {"encoders": json.dumps([name])}
        monkeypatch.setattr(crossfit_file, "_about", lambda *_, told=told: told)
        save_crossfit(tmp_path, trained.model, trained.crossfit)
        assert load_crossfit(tmp_path, trained.model) is None
        assert len(read) == n


@pytest.mark.parametrize("limit", ["MAX_CELLS", "MAX_REFUSED"])
def test_too_much_is_not_kept_and_an_old_file_goes(trained, tmp_path, monkeypatch, limit):
    save_crossfit(tmp_path, trained.model, trained.crossfit)
    monkeypatch.setattr(crossfit, limit, 1)
    assert not save_crossfit(tmp_path, trained.model, trained.crossfit)
    assert not (tmp_path / NAME).exists()
    assert not save_crossfit(tmp_path, trained.model, None)
