"""A bundle gives back the model bit for bit, and nothing that was changed."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from red_ray import bundle
from red_ray.bundle import load_bundle, load_experts, read_provenance, save_bundle, write_provenance
from red_ray.calibration import with_goal
from red_ray.config import Goal
from red_ray.core.risk import fit_risk
from red_ray.errors import BundleError, OutputError, StorageError
from tests.disks import small_disk
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train, truth

KINDS = ("logistic_regression", "random_forest")


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    """Their size decides nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("red_ray.experts.forest.N_TREES", 10)
        yield


@pytest.fixture(scope="module", params=KINDS)
def model(request, corpus):
    """A model of each kind of expert, after a round with a judge."""
    job = corpus.job(expert={"kind": request.param}, loop={"max_iterations": 1})
    return asyncio.run(train(job, FakeValidator(truth(corpus)))).model


@pytest.fixture(scope="module")
def plain(corpus):
    return asyncio.run(train(corpus.job())).model


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bundle"


def distribution(model, corpus):
    return model.assess(corpus.test, FakeEncoder().encode(corpus.test)).distribution


def test_a_loaded_model_gives_the_same_bits(model, folder, corpus):
    bundle_id = save_bundle(model, folder, {})
    loaded = load_bundle(folder)
    assert loaded.bundle_id == bundle_id
    assert distribution(loaded, corpus).tobytes() == distribution(model, corpus).tobytes()
    for name in ("config", "labels", "subsets", "noise_counts", "example_texts", "n_seed"):
        assert getattr(loaded, name) == getattr(model, name)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_some_experts_can_be_read_alone(model, folder, corpus, step):
    bundle_id = save_bundle(model, folder, {})
    vectors = FakeEncoder().encode(corpus.test)
    for first in range(step):
        experts = load_experts(folder, bundle_id, first, step)
        assert len(experts) == len(model.experts[first::step])
        for read, kept in zip(experts, model.experts[first::step], strict=True):
            assert read.score(vectors).tobytes() == kept.score(vectors).tobytes()


def test_what_a_promise_does_not_say_stands_in_no_manifest(plain, folder):
    """So that bundles of before a promise could be stale keep their ids."""
    model = with_goal(plain, Goal(escalate_at_most=0.5), 0.9, None, FakeEncoder)
    save_bundle(model, folder, {})
    promise = json.loads((folder / "manifest.json").read_text())["promise"]
    assert promise["n_rows"] == 60
    assert not {"stale", "uncovered"} & promise.keys()
    stale = dataclasses.replace(model.promise, stale="no row", uncovered=("zebra",))
    save_bundle(dataclasses.replace(model, promise=stale), folder, {})
    assert load_bundle(folder).promise == stale


def test_experts_of_another_or_a_damaged_bundle_are_refused(plain, folder):
    bundle_id = save_bundle(plain, folder, {})
    with pytest.raises(BundleError, match="holds another bundle"):
        load_experts(folder, "0" * 64, 0, 1)
    damaged = folder / "experts" / "expert-01.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    load_experts(folder, bundle_id, 0, 2)
    with pytest.raises(BundleError, match=r"expert-01.*was changed"):
        load_experts(folder, bundle_id, 1, 2)


def test_a_promise_and_a_learned_score_come_back(plain, folder, corpus):
    found = with_goal(plain, Goal(escalate_at_most=0.5), 0.9, None, FakeEncoder)
    features = np.zeros((40, 14))
    features[:20, 0] = 1.0
    risk = fit_risk(features, np.arange(40) < 15, 2.0)
    bundle_id = save_bundle(dataclasses.replace(found, risk=risk), folder, {})
    loaded = load_bundle(folder)
    assert loaded.promise == found.promise
    assert loaded.risk.risk(features).tobytes() == risk.risk(features).tobytes()
    for name in ("label_risk", "right", "offered", "none", "none_out_of_scope"):
        back, was = getattr(loaded.calibration, name), getattr(plain.calibration, name)
        assert (back.dtype, back.tobytes()) == (was.dtype, was.tobytes())
    assert save_bundle(loaded, folder, {}) == bundle_id


def test_a_loaded_model_saves_to_the_same_id(model, folder, tmp_path):
    bundle_id = save_bundle(model, folder, {})
    assert save_bundle(load_bundle(folder), tmp_path / "again", {}) == bundle_id


def test_a_model_that_crossed_a_process_border_has_the_same_id(model, folder, tmp_path):
    """As it does from an actor to the driver: no address or gap in memory is in the id."""
    there = pickle.loads(pickle.dumps(model))
    assert save_bundle(there, folder, {}) == save_bundle(model, tmp_path / "here", {})


@pytest.mark.parametrize("kind", KINDS)
def test_two_fits_of_the_same_rows_give_the_same_id(corpus, tmp_path, kind):
    """Defect 22; also for forests, whose archive would hold times."""
    job = corpus.job(expert={"kind": kind})
    ids = {
        save_bundle(asyncio.run(train(job, n_threads=n)).model, tmp_path / str(n), {})
        for n in (1, 3)
    }
    assert len(ids) == 1


def test_the_id_is_the_hash_of_all_files_but_the_provenance(plain, folder):
    """As the design defines it, worked out with other tools."""
    bundle_id = save_bundle(plain, folder, {"host": "here"})
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "provenance.json"
    )
    sums = [
        subprocess.check_output(["sha256sum", folder / name], text=True).split()[0]
        for name in names
    ]
    listed = "".join(f"{name}\0{digest}\n" for name, digest in zip(names, sums, strict=True))
    whole = subprocess.run(["sha256sum"], input=listed, capture_output=True, text=True, check=True)
    assert whole.stdout.split()[0] == bundle_id


def test_the_provenance_is_not_in_the_id(plain, folder, tmp_path):
    bundle_id = save_bundle(plain, folder, {"created": "today"})
    write_provenance(folder, {"created": "yesterday", "scorecard": {"accuracy": 1.0}})
    assert load_bundle(folder).bundle_id == bundle_id
    assert read_provenance(folder)["created"] == "yesterday"
    (folder / "provenance.json").write_text("{")
    assert read_provenance(folder) == {}
    (folder / "provenance.json").unlink()
    assert load_bundle(folder).bundle_id == bundle_id


def test_where_and_how_fast_is_not_in_the_id(plain, folder, tmp_path):
    """The store, the ledger, the workers and the judge's pace make the same model."""
    config = plain.config.model_copy(
        update={
            "encoder": plain.config.encoder.model_copy(update={"store": tmp_path}),
            "expert": plain.config.expert.model_copy(update={"per_actor": 3}),
            "judge": plain.config.judge.model_copy(
                update={"concurrency": 1, "timeout_s": 3.0, "ledger": "postgresql://host/db"}
            ),
        }
    )
    other = dataclasses.replace(plain, config=config)
    assert save_bundle(other, folder, {}) == save_bundle(plain, tmp_path / "other", {})


def test_what_made_the_model_is_in_the_id(plain, folder, tmp_path):
    other = dataclasses.replace(plain, config=plain.config.model_copy(update={"seed": 43}))
    assert save_bundle(other, folder, {}) != save_bundle(plain, tmp_path / "other", {})


def test_it_holds_no_pickle(model, folder):
    """Defect 24: JSON, safetensors, and archives of skops in which no member is a pickle."""
    save_bundle(model, folder, {})
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".skops"}
    for path in files:
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError)):
            pickle.loads(path.read_bytes())
        if path.suffix == ".skops":
            members = zipfile.ZipFile(path).namelist()
            assert {Path(name).suffix for name in members} <= {".json", ".npy"}


def test_no_code_of_a_foreign_type_is_loaded(folder, corpus, monkeypatch):
    """Defect 24: an archive that names another type is refused by name."""
    forest = corpus.job(expert={"kind": "random_forest"})
    save_bundle(asyncio.run(train(forest)).model, folder, {})
    from skops import io

    monkeypatch.setattr(io, "get_untrusted_types", lambda file: ["os.system"])
    with pytest.raises(BundleError, match=r"os\.system"):
        load_bundle(folder)


def test_a_manifest_with_another_value_is_refused(plain, folder):
    """Valid JSON, one digit changed: no file's hash would tell."""
    save_bundle(plain, folder, {})
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    for old, new in (('"none_threshold": 0.5', '"none_threshold": 0.9'), ("\n", "\r\n")):
        assert old in text
        manifest.write_bytes(text.replace(old, new, 1).encode())
        with pytest.raises(BundleError, match=r"'manifest\.json' was changed"):
            load_bundle(folder)
    manifest.write_text(text)
    load_bundle(folder)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("encoder", "store", "s3://elsewhere/bucket"),
        ("judge", "key_variable", "AWS_SECRET_ACCESS_KEY"),
        ("expert", "per_actor", 3),
    ],
)
def test_a_foreign_bundle_says_nothing_of_this_machine(plain, folder, section, key, value):
    """Whoever makes one can seal it; embeddings of what is classified would go to his store."""
    save_bundle(plain, folder, {})
    set_and_seal(folder, section, value, key)
    with pytest.raises(BundleError, match=rf"sets '{section}\.{key}'.*not written by red-ray"):
        load_bundle(folder)


def set_and_seal(folder, section, value, key=None):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    told = manifest["config"]
    told[section] = value if key is None else told[section] | {key: value}
    text = json.dumps(manifest | {"seal": bundle.UNSEALED})
    path.write_text(bundle._sealed(text, bundle.UNSEALED, bundle._seal(text, bundle.UNSEALED)))


def test_a_ledger_that_a_bundle_names_is_not_taken(plain, folder):
    """Older bundles do."""
    save_bundle(plain, folder, {})
    set_and_seal(folder, "judge", "postgresql://elsewhere/database", "ledger")
    assert load_bundle(folder).config.judge.ledger is None


@pytest.mark.parametrize(
    ("section", "value"), [("judge", None), ("judge", 5), ("encoder", "x"), ("expert", [])]
)
def test_a_configuration_of_another_form_is_told(plain, folder, section, value):
    save_bundle(plain, folder, {})
    set_and_seal(folder, section, value)
    with pytest.raises(BundleError, match="does not fit this version"):
        load_bundle(folder)


def test_labels_that_look_like_a_seal_change_nothing(plain, folder):
    zeros = "0" * 64
    names = (f'"seal": "{zeros}"', zeros, *plain.labels[2:])
    save_bundle(dataclasses.replace(plain, labels=names), folder, {})
    assert load_bundle(folder).labels == names


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": 1}', "{"])
def test_something_else_in_place_of_the_manifest_is_refused(plain, folder, content):
    save_bundle(plain, folder, {})
    (folder / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match="manifest"):
        load_bundle(folder)


def test_a_missing_folder_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="is no bundle"):
        load_bundle(tmp_path / "nowhere")


# --- replacing, and a full disk ----------------------------------------------------------------


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_bundle_replaces_the_old_one_whole(plain, model, folder):
    save_bundle(model, folder, {})
    (folder / "experts" / "left-over.txt").write_text("old")
    bundle_id = save_bundle(plain, folder, {})
    assert load_bundle(folder).bundle_id == bundle_id
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


@pytest.fixture
def swapped(plain, folder, monkeypatch):
    """A bundle that another one replaces when its hashes were checked; how often it may."""
    left, check = [1], bundle._check_hashes

    def checks(place, expected):
        check(place, expected)
        if left[0]:
            left[0] -= 1
            names = (f"label {left[0]}", *plain.labels[1:])
            texts = (f"text {left[0]}", *plain.example_texts[1:])
            other = dataclasses.replace(plain, labels=names, example_texts=texts)
            save_bundle(other, folder, {})

    save_bundle(plain, folder, {})
    monkeypatch.setattr(bundle, "_check_hashes", checks)
    return left


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_whole(swapped, folder):
    """Else the labels of the one would have the examples of the other."""
    found = load_bundle(folder)
    assert (found.labels[0], found.example_texts[0]) == ("label 0", "text 0")
    assert found.bundle_id == bundle.bundle_id_of(folder)


def test_one_that_is_always_replaced_is_told(swapped, folder):
    swapped[0] = 99
    with pytest.raises(BundleError, match="again and again"):
        load_bundle(folder)


def test_experts_of_a_bundle_that_is_replaced_meanwhile_are_not_taken(swapped, folder):
    with pytest.raises(BundleError, match="was replaced while it was read"):
        load_experts(folder, bundle.bundle_id_of(folder), 0, 1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["examples.safetensors", "manifest.json", "provenance.json"])
def test_a_full_disk_keeps_the_old_bundle(plain, folder, monkeypatch, name, code):
    save_bundle(plain, folder, {})
    before = files(folder)
    fill_disk(monkeypatch, name, code)
    other = dataclasses.replace(plain, config=plain.config.model_copy(update={"seed": 43}))
    with pytest.raises(StorageError, match="no space left"):
        save_bundle(other, folder, {})
    assert files(folder) == before


def test_a_place_that_cannot_be_written_is_the_users_mistake(plain, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        save_bundle(plain, tmp_path / "file" / "bundle", {})


def fill_disk(monkeypatch, name, code=errno.ENOSPC):
    """Writing a file of this name meets a full disk."""
    real_bytes, real_text = Path.write_bytes, Path.write_text

    def write_bytes(self, data):
        if self.name == name:
            raise OSError(code, os.strerror(code))
        return real_bytes(self, data)

    def write_text(self, text, **options):
        if self.name == name:
            raise OSError(code, os.strerror(code))
        return real_text(self, text, **options)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(Path, "write_text", write_text)


def test_a_disk_that_is_really_full(plain, small_disk):
    folder = small_disk / "bundle"
    with pytest.raises(StorageError, match="no space left"):
        save_bundle(plain, folder, {})
    assert not folder.exists()


@pytest.fixture(name="small_disk")
def disk_of_512_kib(tmp_path):
    """The n-grams' frequencies alone take 2 MiB."""
    with small_disk(tmp_path / "disk", "512k") as place:
        yield place


def test_the_manifest_is_readable_by_people(plain, folder):
    save_bundle(plain, folder, {})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == bundle.FORMAT
    assert manifest["labels"] == list(plain.labels)
    assert sorted(manifest["files"]) == sorted(set(manifest["files"]))
    assert np.isclose(manifest["config"]["router"]["none_threshold"], 0.5)


def test_what_was_learned_of_a_judges_words_comes_back(plain, folder):
    counts = (3, *(0 for _ in plain.subsets[1:]))
    marked = dataclasses.replace(plain, written_counts=counts)
    save_bundle(marked, folder, {})
    assert load_bundle(folder).written_counts == counts
    assert json.loads((folder / "manifest.json").read_text())["written_counts"] == list(counts)


def test_a_model_that_learned_none_of_a_judges_words_has_the_id_of_one_without(plain, tmp_path):
    """As a bundle of before there was such a setting."""
    judge = plain.config.judge.model_copy(update={"paraphrases": 9, "paraphrase_weight": 0.25})
    asked = dataclasses.replace(plain, config=plain.config.model_copy(update={"judge": judge}))
    ids = {save_bundle(one, tmp_path / str(at), {}) for at, one in enumerate((plain, asked))}
    assert len(ids) == 1
    manifest = json.loads((tmp_path / "0" / "manifest.json").read_text())
    assert "written_counts" not in manifest
    assert not any("paraphrase" in key for key in manifest["config"]["judge"])
    learned = dataclasses.replace(asked, written_counts=(1,) * len(plain.subsets))
    save_bundle(learned, tmp_path / "2", {})
    assert load_bundle(tmp_path / "2").config.judge == judge


def test_who_labelled_and_what_is_known_by_name_alone_come_back(plain, folder):
    marked = dataclasses.replace(plain, labelled_by="judge", unseen=(plain.labels[0],), n_seed=0)
    save_bundle(marked, folder, {})
    found = load_bundle(folder)
    assert (found.labelled_by, found.unseen, found.n_seed) == ("judge", (plain.labels[0],), 0)
