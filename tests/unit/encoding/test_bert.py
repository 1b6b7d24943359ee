"""BERT without the library around it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from red_ray.config import EncoderConfig
from red_ray.encoding import SentenceEncoder
from red_ray.encoding.bert import bare_bert
from red_ray.encoding.encoder import _Way

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def module_of(model: Any) -> Any:
    """As a transformer module of sentence-transformers holds its model."""
    return SimpleNamespace(auto_model=model.eval())


def small_bert(**settings: Any) -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SMALL, intermediate_size=64, **settings))


@pytest.mark.parametrize("n_tokens", [1, 7, 40])
@pytest.mark.parametrize("n_texts", [1, 5])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_embeddings_are_those_of_the_library(
    n_texts: int, n_tokens: int, is_padded: bool, dtype: torch.dtype
) -> None:
    model = small_bert().to(dtype)
    bare = bare_bert(module_of(model))
    assert bare is not None
    ids = torch.randint(0, 50, (n_texts, n_tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if is_padded:
        mask[0, (n_tokens + 1) // 2 :] = 0
    with torch.inference_mode():
        found = bare({"input_ids": ids, "attention_mask": mask})
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert set(found) == {"input_ids", "attention_mask", "token_embeddings"}
    assert found["token_embeddings"].dtype == dtype
    torch.testing.assert_close(found["token_embeddings"], expected)


@pytest.mark.parametrize(
    "model",
    [
        small_bert(is_decoder=True),
        small_bert(hidden_act="relu"),
        small_bert(attn_implementation="eager"),
        small_bert(output_hidden_states=True),
        RobertaModel(RobertaConfig(**SMALL)),
        torch.nn.Linear(2, 2),
    ],
    ids=["decoder", "relu", "eager", "hidden states", "roberta", "no transformer"],
)
def test_a_model_of_another_kind_is_left_to_the_library(model: Any) -> None:
    assert bare_bert(module_of(model)) is None


def test_a_module_that_holds_no_such_model_is_left_to_the_library() -> None:
    assert bare_bert(torch.nn.Identity()) is None


def test_full_batches_take_it_in_the_library_s_bits(tiny_model: Path) -> None:
    config = EncoderConfig(model=str(tiny_model), dtype="bfloat16", max_tokens=48)
    texts = [f"where is my card {'x ' * (n % 30)}{n}" for n in range(64)]
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        found = encoder.encode(texts)
        assert all(way.is_bare for (n, *_), way in encoder._ways.items() if n == 16)
        encoder._ways = {shape: _Way(16, is_bare=False) for shape in encoder._ways}
        assert encoder.encode(texts).tobytes() == found.tobytes()
