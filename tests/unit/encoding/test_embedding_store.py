"""EmbeddingStore: what was stored is found, by every process, or encoded again."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from red_ray.address import Remote
from red_ray.encoding import EmbeddingStore, EncoderSpec
from red_ray.encoding.store import default_root
from red_ray.errors import OutputError, StorageError


def rows(n: int, dim: int = 8, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def only_shard(store: EmbeddingStore) -> Path:
    (path,) = store.folder.glob("*.safetensors")
    return path


def test_what_was_put_is_found_by_the_next_store(tmp_path: Path, spec: EncoderSpec) -> None:
    vectors = rows(3)
    EmbeddingStore(tmp_path, spec, 8).put(["a", "b", "c"], vectors)
    store = EmbeddingStore(tmp_path, spec, 8)
    found, got = store.get(["c", "x", "a"])
    assert found.tolist() == [True, False, True]
    assert np.array_equal(got, [vectors[2], np.zeros(8), vectors[0]])
    assert len(store) == 3
    assert store.dim == 8


def test_an_empty_store_finds_nothing(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)
    found, got = store.get(["a"])
    assert (found.tolist(), got.shape, store.dim, len(store)) == ([False], (1, 0), None, 0)


def test_no_texts_are_no_trouble(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec, 8)
    store.put([], rows(0))
    found, got = store.get([])
    assert (found.shape, got.shape) == ((0,), (0, 8))
    assert list(store.folder.iterdir()) == []


def test_texts_are_told_apart_exactly(tmp_path: Path, spec: EncoderSpec) -> None:
    texts = ["é", "e\u0301", "E", "e", "e ", "", "\x00", "?", "\ud800", "🙂", "日本"]
    vectors = rows(len(texts))
    EmbeddingStore(tmp_path, spec).put(texts, vectors)
    found, got = EmbeddingStore(tmp_path, spec).get(texts)
    assert found.all()
    assert np.array_equal(got, vectors)


def test_duplicates_and_known_texts_are_stored_once(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)
    store.put(["a", "b", "a"], rows(3))
    store.put(["b", "a"], rows(2, seed=1))
    assert len(store) == 2
    assert np.array_equal(store.get(["a", "b"])[1], rows(3)[:2])
    assert load_file(only_shard(store))["keys"].shape == (2, 32)


def test_shards_hold_no_text(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)
    store.put(["my card number is 4711"], rows(1))
    assert b"4711" not in only_shard(store).read_bytes()


def test_specs_do_not_share_a_folder(tmp_path: Path, spec: EncoderSpec) -> None:
    EmbeddingStore(tmp_path, spec).put(["a"], rows(1))
    other = EmbeddingStore(tmp_path, replace(spec, prompt="query: "))
    assert not other.get(["a"])[0].any()


def test_a_reader_sees_what_others_add_meanwhile(tmp_path: Path, spec: EncoderSpec) -> None:
    reader = EmbeddingStore(tmp_path, spec)
    EmbeddingStore(tmp_path, spec).put(["a"], rows(1))
    found, got = reader.get(["a"])
    assert found.all()
    assert np.array_equal(got, rows(1))


def write_many(root: Path, spec: EncoderSpec, first: int) -> int:
    """Store 400 texts in 20 shards, half of them the same as the neighbour's."""
    store = EmbeddingStore(root, spec)
    for start in range(first, first + 400, 20):
        numbers = range(start, start + 20)
        vectors = np.array([[i, i + 1] for i in numbers], dtype=np.float32)
        store.put([f"text {i}" for i in numbers], vectors)
    return len(store)


def all_written(root: Path, spec: EncoderSpec) -> bool:
    found, got = EmbeddingStore(root, spec).get([f"text {i}" for i in range(600)])
    return bool(found.all()) and np.array_equal(got[:, 0], np.arange(600))


def test_two_processes_write_at_once(tmp_path: Path, spec: EncoderSpec) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        jobs = [pool.submit(write_many, tmp_path, spec, first) for first in (0, 200)]
        assert all(job.result() >= 400 for job in jobs)
    assert all_written(tmp_path, spec)


def test_threads_share_one_store(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)

    def work(i: int) -> bool:
        store.put([f"text {i}"], rows(1, seed=i))
        return np.array_equal(store.get([f"text {i}"])[1], rows(1, seed=i))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))
    assert len(store) == 60


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(500))


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"spec": "of another"})


def no_metadata(path: Path) -> None:
    save_file(load_file(path), path)


def other_tensors(path: Path) -> None:
    save_file({"keys": np.zeros((2, 3), np.int32)}, path)


DAMAGES = [truncate, empty, garbage, flip_one_bit, foreign, no_metadata, other_tensors]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_shard_is_ignored_with_one_warning_and_replaced(
    damage: object, tmp_path: Path, spec: EncoderSpec, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    first = EmbeddingStore(tmp_path, spec)
    first.put(["a", "b"], rows(2))
    path = only_shard(first)
    EmbeddingStore(tmp_path, spec).put(["c"], rows(1, seed=1))
    damage(path)
    with caplog.at_level(logging.WARNING):
        store = EmbeddingStore(tmp_path, spec)
        for _ in range(3):
            assert store.get(["a", "c", "b"])[0].tolist() == [False, True, False]
    (record,) = caplog.records
    assert path.name in record.getMessage()
    assert len(store) == 1
    store.put(["a", "b"], rows(2))
    for opened in (store, EmbeddingStore(tmp_path, spec)):
        found, got = opened.get(["a", "b", "c"])
        assert found.all()
        assert np.array_equal(got, [*rows(2), *rows(1, seed=1)])


def test_a_shard_of_another_width_is_ignored(
    tmp_path: Path, spec: EncoderSpec, caplog: pytest.LogCaptureFixture
) -> None:
    EmbeddingStore(tmp_path, spec).put(["a"], rows(1, dim=4))
    assert len(EmbeddingStore(tmp_path, spec, 8)) == 0
    assert "has 4 dimensions, not 8" in caplog.text


def test_a_shard_has_its_name_only_when_it_is_whole(
    tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EmbeddingStore(tmp_path, spec)
    seen: list[int] = []

    def rename(source: Path, target: Path) -> None:
        seen.append(source.stat().st_size)
        assert not list(store.folder.glob("*.safetensors"))
        os.replace(source, target)

    monkeypatch.setattr(Path, "replace", rename)
    store.put(["a"], rows(1))
    assert seen == [only_shard(store).stat().st_size]


def test_a_broken_off_write_leaves_nothing_that_counts(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)
    (store.folder / ".0123.tmp").write_bytes(b"half")
    assert len(EmbeddingStore(tmp_path, spec)) == 0


def test_a_cache_that_somebody_empties_is_filled_again(tmp_path: Path, spec: EncoderSpec) -> None:
    store = EmbeddingStore(tmp_path, spec)
    store.put(["a"], rows(1))
    only_shard(store).unlink()
    store.folder.rmdir()
    assert not store.get(["b"])[0].any()
    store.put(["b"], rows(1, seed=1))
    assert EmbeddingStore(tmp_path, spec).get(["b"])[0].all()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (rows(1), r"expected vectors of shape \(2, 8\), got \(1, 8\)"),
        (rows(2, dim=4), r"expected vectors of shape \(2, 8\), got \(2, 4\)"),
        (np.full((2, 8), np.nan, np.float32), "not finite"),
    ],
)
def test_vectors_that_cannot_be_right_are_refused(
    vectors: npt.NDArray[np.float32], message: str, tmp_path: Path, spec: EncoderSpec
) -> None:
    store = EmbeddingStore(tmp_path, spec, 8)
    with pytest.raises(ValueError, match=message):
        store.put(["a", "b"], vectors)
    assert len(EmbeddingStore(tmp_path, spec)) == 0


def test_a_root_that_cannot_be_written_is_the_users_mistake(
    tmp_path: Path, spec: EncoderSpec
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"set RED_RAY_CACHE or encoder\.store"):
        EmbeddingStore(tmp_path / "file" / "store", spec)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StorageError), (errno.EDQUOT, StorageError), (errno.EROFS, OutputError)],
)
def test_a_write_that_fails_is_told_by_its_cause(
    number: int,
    error: type[Exception],
    tmp_path: Path,
    spec: EncoderSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = EmbeddingStore(tmp_path, spec)

    def fail(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=os.strerror(number)):
        store.put(["a"], rows(1))
    assert list(store.folder.iterdir()) == []
    assert len(store) == 0


def test_the_root_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RED_RAY_CACHE", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("RED_RAY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "red_ray" / "embeddings"


def test_the_environment_names_the_root_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: EncoderSpec
) -> None:
    monkeypatch.setenv("RED_RAY_CACHE", str(tmp_path))
    assert EmbeddingStore(None, spec).folder == tmp_path / spec.key[:16]


# --- at an address -----------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"file://{tmp_path}/there"


def of_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / name))


def test_what_one_machine_stored_another_finds(
    address: str, tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    EmbeddingStore(address, spec).put(["a", "b"], rows(2))
    of_machine("two", tmp_path, monkeypatch)
    store = EmbeddingStore(address, spec)
    found, got = store.get(["b", "c"])
    assert found.tolist() == [True, False]
    assert np.array_equal(got[0], rows(2)[1])
    assert str(only_shard(store)).startswith(str(tmp_path / "two"))


def test_a_shard_is_copied_once(
    address: str, tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    EmbeddingStore(address, spec).put(["a"], rows(1))
    of_machine("two", tmp_path, monkeypatch)
    EmbeddingStore(address, spec)
    copied: list[str] = []
    monkeypatch.setattr(Remote, "download", lambda _, names, __: copied.extend(names))
    assert EmbeddingStore(address, spec).get(["a", "b"])[0].tolist() == [True, False]
    assert copied == []


def test_what_comes_later_is_found_at_the_next_miss(
    address: str, tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    first = EmbeddingStore(address, spec)
    of_machine("two", tmp_path, monkeypatch)
    EmbeddingStore(address, spec).put(["a"], rows(1))
    assert first.get(["a"])[0].tolist() == [True]


def test_what_could_not_be_uploaded_is_not_stored(
    address: str, tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    store = EmbeddingStore(address, spec)

    def away(*_: object) -> None:
        raise StorageError("cannot write: the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upload", away)
        with pytest.raises(StorageError, match="the server is away"):
            store.put(["a"], rows(1))
    assert list(store.folder.iterdir()) == []
    store.put(["a"], rows(1))
    assert len(Remote(address).list()) == 1


def test_a_damaged_shard_at_an_address_is_left_alone(
    address: str,
    tmp_path: Path,
    spec: EncoderSpec,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    Remote(address).write(f"{spec.key[:16]}/torn.safetensors", b"torn")
    store = EmbeddingStore(address, spec)
    assert "embedding shard ignored" in caplog.text
    store.put(["a"], rows(1))
    assert len(Remote(address).list()) == 2


def test_the_environment_may_name_an_address(
    address: str, tmp_path: Path, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine("one", tmp_path, monkeypatch)
    monkeypatch.setenv("RED_RAY_CACHE", address)
    assert default_root() == address
    EmbeddingStore(None, spec).put(["a"], rows(1))
    assert len(Remote(address).list()) == 1
