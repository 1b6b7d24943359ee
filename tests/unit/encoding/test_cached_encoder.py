"""CachedEncoder: each text is encoded once ever, and nobody can tell from the bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from red_ray.config import EncoderConfig
from red_ray.encoding import (
    CachedEncoder,
    EmbeddingStore,
    Encoder,
    EncoderSpec,
    SentenceEncoder,
    cached,
    open_encoder,
)
from red_ray.errors import EncoderError


class LengthEncoder:
    """Counts characters; remembers what it was asked."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.dim = 2
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked.append(list(texts))
        angles = np.array([len(text) for text in texts], dtype=np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def lengths(spec: EncoderSpec) -> LengthEncoder:
    return LengthEncoder(spec)


def test_missing_texts_are_encoded_once_each_in_one_call(
    lengths: LengthEncoder, tmp_path: Path
) -> None:
    encoder = CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec))
    texts = ["bb", "a", "bb", "ccc", "a"]
    vectors = encoder.encode(texts)
    assert lengths.asked == [["bb", "a", "ccc"]]
    assert np.array_equal(vectors, LengthEncoder(lengths.spec).encode(texts))
    assert (encoder.n_encoded, encoder.n_found) == (3, 0)


def test_only_what_is_new_is_encoded(lengths: LengthEncoder, tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, lengths.spec)
    CachedEncoder(lengths, store).encode(["a", "bb"])
    encoder = CachedEncoder(lengths, store)
    vectors = encoder.encode(["ccc", "bb", "bb", "dddd"])
    assert lengths.asked[1:] == [["ccc", "dddd"]]
    assert np.array_equal(vectors, LengthEncoder(lengths.spec).encode(["ccc", "bb", "bb", "dddd"]))
    assert (encoder.n_encoded, encoder.n_found) == (2, 2)


def test_a_second_run_never_makes_the_encoder(lengths: LengthEncoder, tmp_path: Path) -> None:
    CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec)).encode(["a", "bb"])

    def fail() -> Encoder:
        pytest.fail("made the encoder")

    encoder = CachedEncoder(fail, EmbeddingStore(tmp_path, lengths.spec))
    assert encoder.encode(["bb", "a"]).shape == (2, 2)
    assert encoder.encode([]).shape == (0, 2)
    assert encoder.dim == 2
    assert encoder.spec == lengths.spec
    assert not encoder.is_loaded


def test_an_empty_list_asks_an_empty_store_for_its_width_only(
    lengths: LengthEncoder, tmp_path: Path
) -> None:
    encoder = CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec))
    assert encoder.encode([]).shape == (0, 2)
    assert lengths.asked == []


def test_what_was_encoded_before_a_stop_is_kept(
    lengths: LengthEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "_TEXTS_PER_SHARD", 2)
    real = lengths.encode

    def stop_at_c(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if "ccc" in texts:
            raise KeyboardInterrupt
        return real(texts)

    monkeypatch.setattr(lengths, "encode", stop_at_c)
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec)).encode(["a", "bb", "ccc"])
    assert EmbeddingStore(tmp_path, lengths.spec).get(["a", "bb"])[0].all()


def test_many_texts_come_back_in_order(
    lengths: LengthEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "_TEXTS_PER_SHARD", 3)
    texts = ["x" * n for n in range(11)]
    encoder = CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec))
    assert np.array_equal(encoder.encode(texts), LengthEncoder(lengths.spec).encode(texts))


def test_an_encoder_of_another_spec_is_refused(lengths: LengthEncoder, tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, replace(lengths.spec, prompt="q: "))
    with pytest.raises(EncoderError, match="not the one of the store"):
        CachedEncoder(lambda: lengths, store).encode(["a"])


def test_one_string_is_not_a_list_of_texts(lengths: LengthEncoder, tmp_path: Path) -> None:
    encoder = CachedEncoder(lengths, EmbeddingStore(tmp_path, lengths.spec))
    with pytest.raises(TypeError, match="put it into a list"):
        encoder.encode("abc")


def test_bits_do_not_depend_on_what_the_store_held(config: EncoderConfig) -> None:
    texts = [f"my card {i} did not arrive" + " yet" * (i % 30) for i in range(90)]
    with SentenceEncoder.load(config, n_threads=2) as plain:
        expected = plain.encode(texts)
    half = open_encoder(config, n_threads=1)
    half.encode(texts[::2])
    half.close()
    whole = open_encoder(config, n_threads=2)
    assert np.array_equal(whole.encode(texts), expected)
    assert (whole.n_encoded, whole.n_found) == (45, 45)
    whole.close()
    again = open_encoder(config)
    assert np.array_equal(again.encode(texts[::-1]), expected[::-1])
    assert not again.is_loaded


def test_a_second_process_answers_without_torch(config: EncoderConfig) -> None:
    first = open_encoder(config, n_threads=1)
    first.encode(["where is my card ?"])
    first.close()
    code = f"""
import sys
from red_ray.config import EncoderConfig
from red_ray.encoding import open_encoder
encoder = open_encoder(EncoderConfig.model_validate_json({config.model_dump_json()!r}))
assert encoder.encode(["where is my card ?"]).shape == (1, {first.dim})
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
