"""The shipped encoder over thousands of texts: a row's bits are its text's alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from red_ray.config import EncoderConfig
from red_ray.data.demo import load_demo
from red_ray.encoding import SentenceEncoder

N_TEXTS = 5_000
ODD = [
    *(
        "日本語のカード",
        "карта не пришла",
        "بطاقتي",
        "👩‍👩‍👧 🏳️‍🌈",
        "Straße",
        "ﬁ①Å",
        "e\u0301\u0302",
    ),
    *("\u200b", "\x00", "\ud83d", "\u202e", "x" * 300, "!?" * 40, "a\tb\nc", "١٢٣", "\U0010ffff"),
]

Vectors = npt.NDArray[np.float32]


def recombined(n: int, seed: int) -> list[str]:
    """Distinct texts of nothing to some hundred tokens, of the demo corpus' words and odd ones."""
    rng = np.random.default_rng(seed)
    corpus = load_demo(0)
    words = sorted({word for text in (*corpus.train.texts, *corpus.pool) for word in text.split()})
    texts = {"": None}
    while len(texts) < n:
        long = rng.random() < 0.05  # some beyond the model's 256 tokens
        length = int(rng.integers(1, 320)) if long else min(int(rng.geometric(1 / 14)), 320)
        chosen = [str(word) for word in rng.choice(words, length)]
        for place in rng.integers(length, size=rng.poisson(0.5)):
            chosen[place] = ODD[rng.integers(len(ODD))]
        texts[" ".join(chosen)] = None
    return list(texts)


def pieces(texts: Sequence[str], rng: np.random.Generator) -> list[Sequence[str]]:
    """Cut into calls of 1 to 400 texts."""
    found, start = [], 0
    while start < len(texts):
        end = start + int(rng.choice([1, 2, 15, 16, 17, rng.integers(1, 401)]))
        found.append(texts[start:end])
        start = end
    return found


@pytest.fixture(scope="module", params=["auto", "float32"])
def config(request: pytest.FixtureRequest) -> EncoderConfig:
    """`auto` is bfloat16 where the processor has it."""
    return EncoderConfig(dtype=request.param)


@pytest.fixture(scope="module")
def texts(config: EncoderConfig) -> list[str]:
    return recombined(N_TEXTS if config.dtype == "auto" else N_TEXTS // 5, seed=11)


@pytest.fixture(scope="module")
def expected(config: EncoderConfig, texts: list[str]) -> Vectors:
    """All texts in one call, on two threads."""
    with SentenceEncoder.load(config, n_threads=2) as encoder:
        return encoder.encode(texts)


def assert_same_bits(found: Vectors, expected: Vectors, texts: Sequence[str]) -> None:
    different = np.flatnonzero((found.view(np.uint32) != expected.view(np.uint32)).any(axis=1))
    assert not len(different), f"{len(different)} rows differ, first {texts[different[0]]!r}"


@pytest.mark.parametrize("n_threads", [1, 3])
def test_order_company_and_threads_leave_the_bits(
    n_threads: int,
    config: EncoderConfig,
    texts: list[str],
    expected: Vectors,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Shuffled, in calls of random sizes, from two callers at once."""
    rng = np.random.default_rng(n_threads)
    order = rng.permutation(len(texts))
    shuffled = [texts[i] for i in order]
    calls = pieces(shuffled, rng)
    with (
        SentenceEncoder.load(config, n_threads=n_threads) as encoder,
        ThreadPoolExecutor(2) as callers,
    ):
        began_s = time.perf_counter()
        found = np.vstack(list(callers.map(encoder.encode, calls)))
        rate = len(texts) / (time.perf_counter() - began_s)
    with capsys.disabled():
        told = f"{len(texts)} texts in {len(calls)} calls, {rate:.0f} texts/s"
        print(f"\n{encoder.spec.dtype}, {n_threads} threads: {told} ", end="")
    assert_same_bits(found, expected[order], shuffled)


def test_texts_are_as_varied_as_promised(texts: list[str], expected: Vectors) -> None:
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) > 1_000
    assert sum(not text.isascii() for text in texts) > len(texts) / 10
    assert np.isfinite(expected).all()
    assert len(np.unique(expected, axis=0)) > 0.95 * len(texts)  # beyond the limit texts are equal
