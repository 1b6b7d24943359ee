"""A tiny model of our own, and no network: no test here may ask a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from red_ray.config import EncoderConfig
from red_ray.encoding import EncoderSpec

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d e f g h j k l m n o p q r s t u v w x y z "
    "##a ##b ##c ##d ##e ##f ##g ##h ##i ##j ##k ##l ##m ##n ##o ##p ##q ##r ##s ##t ##u "
    "##v ##w ##x ##y ##z my card did not arrive yet where is it how do i top up ? ! ."
)
DIM = 64


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No hub answers, and its cache is this empty folder."""
    import huggingface_hub

    def refuse(self: Any, repo: str, **options: Any) -> None:
        raise ConnectionError(f"no network in tests, asked for {repo}")

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def write_modules(folder: Path, dim: int) -> None:
    """Make a transformers folder one of sentence-transformers: mean pooling behind it."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}', encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT and a mean pooling."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(WORDS.split()), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(WORDS.split()),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(vocab), model_max_length=64).save_pretrained(folder)
    write_modules(folder, DIM)
    return folder


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> EncoderConfig:
    """The tiny model in bfloat16, where thread counts and shapes show in the bits."""
    return EncoderConfig(
        model=str(tiny_model), dtype="bfloat16", max_tokens=48, store=tmp_path / "store"
    )


@pytest.fixture
def spec() -> EncoderSpec:
    return EncoderSpec(
        model="m",
        revision=None,
        weights_sha256="ab" * 32,
        dtype="float32",
        max_tokens=256,
        truncate_dim=None,
        prompt="",
        normalised=True,
        batch_rows=16,
    )
