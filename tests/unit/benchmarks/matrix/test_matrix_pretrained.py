"""A model that cannot be had is told in one line; batches hold every text once."""

from __future__ import annotations

import huggingface_hub
import pytest

from benchmarks.matrix.methods.pretrained import batches, load_tokenizer, machine_of
from red_ray.errors import ConfigError


def test_a_model_that_is_nowhere_is_told_in_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to\nthe hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(ConfigError, match=r"nobody/at-all.*no route") as got:
        load_tokenizer("nobody/at-all")
    assert "\n" not in str(got.value)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ConfigError, match="holds no model"):
        load_tokenizer(str(tmp_path))


def test_a_folder_that_does_not_load_is_told_in_one_line(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="does not load") as got:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(got.value)


def test_batches_hold_every_text_once_and_alike_long_ones_together():
    texts = [("a" * n, "b") for n in (5, 1, 9, 2, 8)]
    found = [at.tolist() for at in batches(texts, 2)]
    assert found == [[2, 4], [0, 3], [1]]
    assert list(batches([], 2)) == []


def test_a_column_that_asks_for_no_card_computes_on_the_processor():
    import torch

    assert machine_of(0, "auto") == ("cpu", torch.float32)
    assert machine_of(0, "bfloat16").is_half
