"""The kinds of model that the modes name: BERT, MPNet and Qwen3, tiny and of our own making."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from red_ray.bundle import load_bundle, save_bundle
from red_ray.config import EncoderConfig, SetFitConfig, load_config
from red_ray.encoding import SentenceEncoder, TuningRows, open_encoder
from red_ray.encoding.tuning import tune
from red_ray.training import LocalFleet, TrainingJob
from tests.unit.encoding.conftest import WORDS, write_modules
from tests.unit.training.fakes import train

TEXTS = ("where is my card", "my card did not arrive", "how do i top up", "top up my card ?")
LABELS = np.array([0, 0, 1, 1])
DIM = 32


def tiny_mpnet(folder: Path) -> None:
    from transformers import BertTokenizerFast, MPNetConfig, MPNetModel

    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(WORDS.split()), encoding="utf-8")
    config = MPNetConfig(
        vocab_size=len(WORDS.split()) + 2,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    MPNetModel(config).save_pretrained(folder)
    BertTokenizerFast(str(vocab), model_max_length=64).save_pretrained(folder)
    write_modules(folder, DIM)


def tiny_qwen(folder: Path) -> None:
    """With the last token's state as a text's vector, as Qwen3-Embedding has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    words = [*WORDS.split(), "<|endoftext|>"]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    end = ("<|endoftext|>", len(words) - 1)
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[end]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=64,
    )
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
    )
    Qwen3Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_modules(folder, DIM)
    pooling = {"word_embedding_dimension": DIM, "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


MAKERS = {"balanced": tiny_mpnet, "accuracy": tiny_qwen}


@pytest.fixture(scope="module", params=MAKERS)
def mode_and_model(request, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    MAKERS[request.param](folder)
    return request.param, str(folder)


def config_of(mode: str, model: str, store: Path) -> EncoderConfig:
    given = {"model": model, "store": store, "dtype": "float32"}
    if mode == "accuracy":
        given["truncate_dim"] = 16
    return load_config(overrides={"mode": mode, "encoder": given}).encoder


def test_it_encodes_and_is_fine_tuned(mode_and_model, tmp_path):
    config = config_of(*mode_and_model, tmp_path)
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        plain = encoder.encode(TEXTS)
    assert plain.shape == (4, 16 if mode_and_model[0] == "accuracy" else DIM)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    settings = SetFitConfig(layers=1, min_steps=30, max_steps=30, learning_rate=3e-3, dropout=0)
    weights = tune(config, TuningRows(TEXTS, LABELS, plain), settings, seed=0)
    with SentenceEncoder.load(config, n_threads=1, tuned=weights) as encoder:
        tuned = encoder.encode(TEXTS)
    alike, unlike = ([0, 2], [1, 3]), ([0, 1], [2, 3])

    def mean(vectors: np.ndarray, pairs: tuple[list[int], list[int]]) -> float:
        return float((vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean())

    assert mean(tuned, alike) - mean(tuned, unlike) > mean(plain, alike) - mean(plain, unlike) + 0.2


def test_a_row_is_the_same_bits_in_any_company(mode_and_model, tmp_path):
    """Padding on the right, though the tokenizer of Qwen3 pads on the left."""
    config = config_of(*mode_and_model, tmp_path)
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        together = encoder.encode(["is it here ?", *TEXTS])
        alone = encoder.encode(TEXTS[1:2])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


def test_a_run_in_its_mode_ends_in_a_bundle_that_answers(mode_and_model, tmp_path):
    mode, model = mode_and_model
    over = {
        "mode": mode,
        "encoder": config_of(mode, model, tmp_path).model_dump(),
        "setfit": {"min_steps": 2, "max_steps": 2},
        "router": {"folds": 2},
    }
    config = load_config(overrides=over)
    texts = tuple(f"{text} {word}" for text in TEXTS for word in ("a", "b", "c"))
    labels = tuple(np.repeat(["arrival", "arrival", "top_up", "top_up"], 3).tolist())
    job = TrainingJob(texts, labels, (), {}, config)
    encoder = open_encoder(config.encoder, n_threads=1)
    trained = asyncio.run(train(job, fleet=LocalFleet(encoder, n_threads=1)))
    bundle_id = save_bundle(trained.model, tmp_path / "bundle", {})
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.bundle_id == bundle_id
    assert (loaded.tuned is None) == (mode == "balanced")
    asked = ["where is my card a", "how do i top up b"]
    expected = [one.confidence for one in trained.model.predict(asked)]
    assert [one.confidence for one in loaded.predict(asked)] == pytest.approx(expected)
