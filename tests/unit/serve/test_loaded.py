"""The bundle that answers: how it is told from another, and what is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from red_ray.bundle import MANIFEST, write_provenance
from red_ray.encoding import EncoderSpec
from red_ray.errors import BundleError, ConfigError, DataError, EncoderError
from red_ray.run_folder import RunFolder
from serve.loaded import WARM_BATCHES, check_can_keep, judged, load, run_at, stamp_of
from serve.settings import ServeSettings
from tests.unit.serve.endpoints import copy, with_escalation_from, write_anew, write_run_of
from tests.unit.training.fakes import FakeEncoder

SPEC = EncoderSpec(
    model="m",
    revision=None,
    weights_sha256="0" * 64,
    dtype="float32",
    max_tokens=256,
    truncate_dim=None,
    prompt="",
    normalised=True,
    batch_rows=8,
    settings_sha256="0" * 64,
    device="cpu",
)


def settings_of(run, **judge):
    return ServeSettings.model_validate({"run": str(run), "judge": judge})


def loaded_of(run, before=None, **judge):
    return load(str(run), settings_of(run, **judge), before)


# --- the stamp ---------------------------------------------------------------------------------


def test_a_stamp_stays_while_nothing_changes(served):
    before = stamp_of(str(served))
    os.utime(served / "config.yaml")
    (served / "scorecard.json").write_text("{}")
    assert stamp_of(str(served)) == before


def test_a_stamp_is_of_the_place_that_a_link_leads_to(served, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(served)
    assert stamp_of(str(link)) == stamp_of(str(served))
    other = copy(served, tmp_path / "other")
    before = stamp_of(str(link))
    link.unlink()
    link.symlink_to(other)
    assert stamp_of(str(link)) != before


def test_a_bundle_that_is_written_anew_has_another_stamp(served, half):
    before = stamp_of(str(served))
    write_anew(half, served)
    assert stamp_of(str(served)) != before, "the same content, but it was replaced"


@pytest.mark.parametrize("name", ["examples.json", "experts/expert-01.safetensors", MANIFEST])
def test_a_file_that_comes_later_changes_the_stamp(served, name):
    path = served / "bundle" / name
    content, before = path.read_bytes(), stamp_of(str(served))
    path.write_bytes(content + b" ")
    assert stamp_of(str(served)) != before


def test_provenance_is_no_part_of_it(served):
    before = stamp_of(str(served))
    write_provenance(served / "bundle", {"scorecard": {"accuracy": 0.5}})
    assert stamp_of(str(served)) == before


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_where_there_is_no_run_there_is_no_stamp(tmp_path, name):
    with pytest.raises(DataError, match="is no finished run"):
        stamp_of(str(tmp_path / name))


# --- loading -----------------------------------------------------------------------------------


def test_a_bundle_answers_as_the_model_that_was_saved(served, half, corpus):
    found = loaded_of(served)
    said = [(one.label, one.decision) for one in found.model.predict(corpus.test)]
    assert said == [(one.label, one.decision) for one in half.predict(corpus.test)]
    assert found.stamp == stamp_of(str(served))
    assert found.folder == served.resolve() / "bundle"
    assert found.texts_per_s > 0
    assert abs((datetime.now(UTC) - found.at).total_seconds()) < 600


def test_the_encoder_is_taken_over(served, half, encoders):
    first = loaded_of(served)
    other = write_anew(with_escalation_from(half, 2.0), served)
    second = loaded_of(served, first)
    assert second.model.bundle_id == other != first.model.bundle_id
    assert second.model.encoder is first.model.encoder
    assert len(encoders) == 1


def test_a_new_encoder_meets_small_batches_before_anybody_waits(served, encoders, monkeypatch):
    sizes, encode = [], FakeEncoder.encode

    def counted(self, texts):
        sizes.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(FakeEncoder, "encode", counted)
    loaded = loaded_of(served)
    assert set(sizes) >= set(WARM_BATCHES)
    sizes.clear()
    loaded_of(served, loaded)
    assert not set(sizes) & set(WARM_BATCHES) - {1}


@pytest.mark.parametrize("is_known", [True, False])
def test_another_encoder_is_loaded(served, half, encoders, is_known):
    """Told by what made the embeddings, and where that cannot be said, by the configuration."""
    first = loaded_of(served)
    config = half.config.model_copy(
        update={"encoder": half.config.encoder.model_copy(update={"model": "another"})}
    )
    changed = replace(half, config=config)
    before = first
    if is_known:
        before = replace(first, model=replace(first.model, encoder_spec=SPEC))
        changed = half
    write_anew(changed, served)
    second = loaded_of(served, before)
    assert second.model.encoder is not first.model.encoder
    assert len(encoders) == 2


def test_an_encoder_that_is_not_the_models_is_refused(served, monkeypatch):
    def refuse(*_):
        raise EncoderError("other weights")

    monkeypatch.setattr("red_ray.model.RedModel.check_encoder", refuse)
    with pytest.raises(EncoderError, match="other weights"):
        loaded_of(served)


def test_a_bundle_that_was_changed_is_refused(served):
    path = served / "bundle" / "examples.json"
    path.write_text(path.read_text().replace("family0", "family1", 1))
    with pytest.raises(BundleError, match=r"'examples.json' was changed"):
        loaded_of(served)


@pytest.mark.parametrize("name", ["examples.json", "experts"])
def test_a_bundle_that_is_half_there_is_refused(served, name):
    path = served / "bundle" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        loaded_of(served)


def test_a_file_that_goes_away_while_it_is_read_is_no_traceback(served, monkeypatch):
    def vanish(_):
        raise FileNotFoundError(2, "No such file or directory", "x")

    monkeypatch.setattr("serve.loaded.load_bundle", vanish)
    with pytest.raises(BundleError, match=r"cannot read the bundle .*: No such file"):
        loaded_of(served)


def test_a_bundle_that_says_nothing_that_is_a_number_is_refused(half, encoders, tmp_path):
    del encoders
    vectors = np.full_like(half.example_vectors, np.nan)
    run = write_run_of(replace(half, example_vectors=vectors), tmp_path / "nan")
    with pytest.raises(BundleError, match="gives no finite probabilities"):
        loaded_of(run)


# --- the judge ---------------------------------------------------------------------------------


@pytest.fixture
def with_judge(served, half):
    judge = half.config.judge.model_copy(update={"spec": "neighbours"})
    RunFolder(served).write_config(half.config.model_copy(update={"judge": judge}))
    return RunFolder(served)


@pytest.mark.parametrize(
    ("given", "asked"), [(None, "neighbours"), ("off", None), ("ollama:m", "ollama:m")]
)
def test_the_judge_is_the_runs_unless_the_endpoint_names_another(with_judge, given, asked):
    settings = settings_of(with_judge.path, spec=given)
    assert judged(with_judge, settings).judge.spec == asked
    assert loaded_of(with_judge.path, spec=given).judge == asked


def test_a_run_without_a_configuration_is_told(served):
    (served / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        loaded_of(served)


# --- at an address -----------------------------------------------------------------------------


@pytest.fixture
def address(served, half, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_ledger(served, half, "postgresql://user@host/verdicts")
    return f"file://{served}"


def write_ledger(served, half, place):
    judge = half.config.judge.model_copy(update={"ledger": place})
    RunFolder(served).write_config(half.config.model_copy(update={"judge": judge}))


def test_a_bundle_at_an_address_answers(address, served, half, encoders):
    found = load(address, settings_of(address), None)
    assert found.model.bundle_id == load(str(served), settings_of(served), None).model.bundle_id
    assert found.place == address
    assert found.stamp == stamp_of(address)
    assert str(found.folder).startswith(os.environ["HOME"])


def test_a_newer_bundle_at_an_address_is_noticed(address, served, half, encoders):
    first = load(address, settings_of(address), None)
    (served / "scorecard.json").write_text("{}")
    assert stamp_of(address) == first.stamp
    other = write_anew(with_escalation_from(half, 2.0), served)
    assert stamp_of(address) != first.stamp
    second = load(address, settings_of(address), first)
    assert second.model.bundle_id == other != first.model.bundle_id
    assert second.model.encoder is first.model.encoder
    assert first.folder.is_dir()


def test_where_there_is_no_run_at_an_address_there_is_no_stamp(tmp_path):
    with pytest.raises(DataError, match=r"'file://.*' is no finished run"):
        stamp_of(f"file://{tmp_path}/nowhere")


def test_an_endpoint_at_an_address_needs_a_database(address, served, half, encoders):
    write_ledger(served, half, None)
    with pytest.raises(ConfigError, match="needs a database"):
        load(address, settings_of(address), None)
    assert not encoders, "it is told before anybody waits for an encoder"
    config = judged(run_at(address), settings_of(address))
    with pytest.raises(ConfigError, match="needs a database"):
        check_can_keep(address, config)
    check_can_keep("runs/local", config)
