"""SentenceEncoder: rows whose bits depend on their text alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from red_ray.config import EncoderConfig
from red_ray.encoding import SentenceEncoder, resolve_spec
from red_ray.encoding.encoder import _Way, available_processors
from red_ray.encoding.files import find_model
from red_ray.errors import EncoderError

WORDS = ["my", "card", "did", "not", "arrive", "yet", "where", "is", "it", "how", "top", "up", "?"]


def sentences(n: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Distinct texts of 1 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join([*rng.choice(WORDS, rng.integers(1, longest)), *str(i)]) for i in range(n)]


@pytest.fixture(scope="module")
def tiny_config(tiny_model: Path) -> EncoderConfig:
    return EncoderConfig(model=str(tiny_model), dtype="bfloat16", max_tokens=48)


@pytest.fixture(scope="module")
def tiny(tiny_config: EncoderConfig) -> Iterator[SentenceEncoder]:
    with SentenceEncoder.load(tiny_config, n_threads=2) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def minilm() -> Iterator[SentenceEncoder]:
    with SentenceEncoder.load(EncoderConfig(), n_threads=2) as encoder:
        yield encoder


@pytest.fixture(params=["tiny", "minilm"])
def encoder(request: pytest.FixtureRequest) -> SentenceEncoder:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, SentenceEncoder)
    return found


def test_rows_are_float32_of_length_one(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(sentences(50))
    assert vectors.shape == (50, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_bits_do_not_depend_on_order(encoder: SentenceEncoder) -> None:
    texts = sentences(150)
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = encoder.encode([texts[i] for i in order])
    assert np.array_equal(shuffled, encoder.encode(texts)[order])


def test_bits_do_not_depend_on_company(encoder: SentenceEncoder) -> None:
    texts = sentences(60)
    together = encoder.encode(texts)
    alone = np.vstack([encoder.encode([text]) for text in texts[:10]])
    some = encoder.encode(texts[5:37] + sentences(9, seed=5))
    assert np.array_equal(alone, together[:10])
    assert np.array_equal(some[:32], together[5:37])


def forward_passes(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[_Way]:
    """The ways of the forward passes from now on."""
    passed, forward_in = [], encoder._forward_in

    def counted(way: _Way, *given: Any) -> Any:
        passed.append(way)
        return forward_in(way, *given)

    monkeypatch.setattr(encoder, "_forward_in", counted)
    return passed


def spoil(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, *ways: _Way) -> None:
    """Other bits in these ways, as from a processor that takes other kernels for other shapes."""
    forward_in = encoder._forward_in

    def other_bits(way: _Way, *given: Any) -> Any:
        vectors = forward_in(way, *given)
        return np.nextafter(vectors, np.float32(2)) if way in ways else vectors

    encoder._ways.clear()  # of one text it was seen while it was loaded
    monkeypatch.setattr(encoder, "_forward_in", other_bits)


def test_few_texts_take_the_quickest_way_that_was_seen_to_give_the_same_bits(
    tiny_config: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["my card", "top up", "where is it"]
    with SentenceEncoder.load(tiny_config, n_threads=1) as encoder:
        passed = forward_passes(encoder, monkeypatch)
        first, then = encoder.encode(texts), encoder.encode(texts)
        assert first.tobytes() == then.tobytes()
        full = encoder.spec.batch_rows
        ways = [_Way(rows, is_bare) for rows in (3, full) for is_bare in (True, False)]
        *tried, taken = passed
        assert tried[0] == ways[-1]
        assert tried[1:] == ways[: len(tried) - 1]  # by the processor one to three
        assert taken == encoder._ways[3, 16, True]
        assert taken in (tried[-1], ways[-1])


def test_a_way_that_gives_other_bits_is_not_taken(
    tiny_config: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["my card", "top up", "where is it"]
    with SentenceEncoder.load(tiny_config, n_threads=1) as encoder:
        full = encoder.spec.batch_rows
        quick = [_Way(1, True), _Way(1, False), _Way(full, True)]
        expected = encoder.encode(sentences(full) + texts)[-3:]
        for n_spoilt in (1, 2, 3):
            with monkeypatch.context() as patch:
                spoil(encoder, patch, *quick[:n_spoilt])
                passed = forward_passes(encoder, patch)
                alone = np.vstack([encoder.encode([text]) for text in texts])
                assert alone.tobytes() == expected.tobytes()
                again = np.vstack([encoder.encode([text]) for text in texts])
                assert again.tobytes() == expected.tobytes()
                assert not set(passed[-3:]) & set(quick[:n_spoilt])


def test_texts_that_need_no_padding_have_the_same_bits_alone(encoder: SentenceEncoder) -> None:
    """Sixteen tokens, two of them the model's own, and texts that are cut."""
    whole, cut = " ".join(["card"] * 14), " ".join(["card"] * 400)
    other = " ".join(["top"] * 14)
    texts = [whole, other, cut, cut + " up"]
    together = encoder.encode([*sentences(40), *texts])[-4:]
    for _ in range(2):  # first both ways, then as it is
        alone = np.vstack([encoder.encode([text]) for text in texts])
        assert alone.tobytes() == together.tobytes()
        assert encoder.encode(texts[:2]).tobytes() == together[:2].tobytes()


@pytest.mark.parametrize("kind", ["tiny", "minilm"])
@pytest.mark.parametrize("n_threads", [1, 3, None])
def test_bits_do_not_depend_on_the_number_of_threads(
    kind: str, n_threads: int | None, tiny_config: EncoderConfig, request: pytest.FixtureRequest
) -> None:
    reference: SentenceEncoder = request.getfixturevalue(kind)
    config = tiny_config if kind == "tiny" else EncoderConfig()
    texts = sentences(120)
    with SentenceEncoder.load(config, n_threads=n_threads) as other:
        assert np.array_equal(other.encode(texts), reference.encode(texts))


@pytest.mark.parametrize("kind", ["tiny", "minilm"])
def test_bits_survive_somebody_who_changes_the_threads_of_torch(
    kind: str, tiny_config: EncoderConfig, request: pytest.FixtureRequest
) -> None:
    """Also in threads of the pool that start afterwards."""
    import torch

    reference: SentenceEncoder = request.getfixturevalue(kind)
    texts = sentences(80)
    config = tiny_config if kind == "tiny" else EncoderConfig()
    with SentenceEncoder.load(config, n_threads=3) as encoder:
        torch.set_num_threads(2)
        try:
            assert np.array_equal(encoder.encode(texts), reference.encode(texts))
            assert set(encoder._pool.map(lambda _: torch.get_num_threads(), range(30))) == {1}
        finally:
            torch.set_num_threads(1)


def test_several_callers_at_once_get_their_own_rows(encoder: SentenceEncoder) -> None:
    requests = [sentences(30, seed=seed) for seed in range(12)]
    expected = [encoder.encode(texts) for texts in requests]
    with ThreadPoolExecutor(6) as callers:
        results = list(callers.map(encoder.encode, requests))
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


def test_vectors_are_those_of_sentence_transformers(minilm: SentenceEncoder) -> None:
    """In float32 and batches of its own; what is left is bfloat16."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
    texts = ["My card has not arrived yet.", "Wo ist meine Karte?", "top up", "a " * 400]
    theirs = model.encode(texts, show_progress_bar=False)
    cosine = (theirs * minilm.encode(texts)).sum(axis=1)
    assert cosine.min() > 0.9995


def test_float32_gives_the_vectors_of_sentence_transformers_but_for_rounding(
    tiny_model: Path,
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = sentences(20)
    theirs = SentenceTransformer(str(tiny_model), device="cpu").encode(
        texts, normalize_embeddings=True, show_progress_bar=False
    )
    config = EncoderConfig(model=str(tiny_model), dtype="float32")
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)


def test_no_texts_give_no_rows(tiny: SentenceEncoder) -> None:
    assert tiny.encode([]).shape == (0, 64)


def test_odd_texts_are_encoded_like_any_other(tiny: SentenceEncoder) -> None:
    texts = ["", " ", "\n", "\x00", "日本語 🙂", "\ud800 broken", "e\u0301", "x" * 10_000]
    vectors = tiny.encode(texts)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_text_beyond_the_limit_does_not_count(tiny: SentenceEncoder) -> None:
    start = " ".join(["card"] * 60)
    same, other = tiny.encode([start, start + " arrive where"])
    assert np.array_equal(same, other)


def test_the_lower_of_both_limits_holds(tiny_model: Path) -> None:
    """The model takes 64 tokens; asking for 500 must not run over its positions."""
    config = EncoderConfig(model=str(tiny_model), max_tokens=500)
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        a, b = encoder.encode(["card " * 62, "card " * 300])
    assert np.array_equal(a, b)


def test_one_string_is_not_a_list_of_texts(tiny: SentenceEncoder) -> None:
    with pytest.raises(TypeError, match="put it into a list"):
        tiny.encode("my card")


def test_truncate_dim_keeps_the_leading_dimensions_at_length_one(
    tiny: SentenceEncoder, tiny_config: EncoderConfig
) -> None:
    texts = sentences(10)
    full = tiny.encode(texts)[:, :16]
    config = tiny_config.model_copy(update={"truncate_dim": 16})
    with SentenceEncoder.load(config, n_threads=1) as short:
        assert short.dim == 16
        expected = full / np.linalg.norm(full, axis=1, keepdims=True)
        np.testing.assert_allclose(short.encode(texts), expected, atol=1e-6)


def test_truncate_dim_beyond_the_model_is_refused(tiny_config: EncoderConfig) -> None:
    config = tiny_config.model_copy(update={"truncate_dim": 65})
    with pytest.raises(EncoderError, match=r"truncate_dim is 65.*has 64 dimensions"):
        SentenceEncoder.load(config, n_threads=1)


def test_a_prompt_stands_before_every_text(
    tiny: SentenceEncoder, tiny_config: EncoderConfig
) -> None:
    config = tiny_config.model_copy(update={"prompt": "where is "})
    with SentenceEncoder.load(config, n_threads=1) as prompted:
        assert np.array_equal(prompted.encode(["it"]), tiny.encode(["where is it"]))
        assert prompted.spec.key != tiny.spec.key


def test_the_spec_is_the_one_that_resolve_tells(
    tiny: SentenceEncoder, tiny_config: EncoderConfig
) -> None:
    assert tiny.spec == resolve_spec(tiny_config)


def test_packed_weights_give_the_same_bits(
    tiny: SentenceEncoder, tiny_config: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("red_ray.encoding.packing.can_pack", lambda: False)
    texts = sentences(60)
    with SentenceEncoder.load(tiny_config, n_threads=1) as plain:
        assert np.array_equal(plain.encode(texts), tiny.encode(texts))


def damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10" * 100)


def unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}', encoding="utf-8")


@pytest.mark.parametrize("damage", [damaged_weights, unknown_type])
def test_a_model_that_does_not_load_gives_one_line(
    damage: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    damage(folder)
    with pytest.raises(EncoderError, match=r"\Athe model .*\Z"):
        SentenceEncoder.load(EncoderConfig(model=str(folder)), n_threads=1)


def test_a_model_that_is_no_transformer_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    kind = "sentence_transformers.models.StaticEmbedding"
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    shutil.copy(tiny_model / "tokenizer.json", tmp_path)
    save_file({"embedding.weight": np.ones((90, 8), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="choose a sentence-transformers text model"):
        SentenceEncoder.load(EncoderConfig(model=str(tmp_path)), n_threads=1)


def test_loading_is_silent_and_leaves_no_switch_changed(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import transformers

    before = logging.getLogger("transformers").level
    shown = transformers.utils.logging.is_progress_bar_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SentenceEncoder.load(EncoderConfig(model=str(tiny_model)), n_threads=1).close()
    assert capfd.readouterr() == ("", "")
    assert not caught
    assert logging.getLogger("transformers").level == before
    assert transformers.utils.logging.is_progress_bar_enabled() == shown


def test_a_fresh_process_loads_in_silence_and_shows_bars_afterwards(tiny_model: Path) -> None:
    code = f"""
import os, warnings
warnings.simplefilter("error")
from red_ray.config import EncoderConfig
from red_ray.encoding import SentenceEncoder
encoder = SentenceEncoder.load(EncoderConfig(model={str(tiny_model)!r}))
encoder.encode(["a card"] * 600)
if os.fork() == 0:  # as Ray does; tokenizers must have nothing to say about it
    os._exit(0)
os.wait()
import transformers, torch
assert transformers.utils.logging.is_progress_bar_enabled()
assert torch.get_num_threads() == 1
"""
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_close_ends_the_threads(tiny_config: EncoderConfig) -> None:
    encoder = SentenceEncoder.load(tiny_config, n_threads=2)
    encoder.encode(sentences(40))
    mine = [t for t in threading.enumerate() if t in encoder._pool._threads]
    assert mine
    encoder.close()
    assert not any(thread.is_alive() for thread in mine)
    with pytest.raises(RuntimeError, match="after shutdown"):
        encoder.encode(["a"])


def test_threads_by_default_are_the_processors_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7})
    assert available_processors() == 3


def test_n_threads_must_be_positive(tiny_config: EncoderConfig) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        SentenceEncoder.load(tiny_config, n_threads=0)
