"""Linear layers with weights laid out once."""

from __future__ import annotations

import pytest
import torch

from red_ray.encoding import packing
from red_ray.encoding.packing import can_pack, pack_linears

needs_packing = pytest.mark.skipif(not can_pack(), reason="torch lacks the operators here")


def layers(dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(64, 96), torch.nn.Linear(96, 32, bias=False)
    return torch.nn.Sequential(first, torch.nn.GELU(), second).to(dtype)


@needs_packing
def test_packed_layers_give_the_same_bits() -> None:
    plain, packed = layers(torch.bfloat16), layers(torch.bfloat16)
    assert pack_linears(packed, n_rows=64) == 2
    rows = torch.randn(4, 16, 64).to(torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(plain(rows), packed(rows))


@needs_packing
def test_a_float32_input_is_not_taken_for_bfloat16() -> None:
    packed = layers(torch.bfloat16)
    pack_linears(packed, n_rows=64)
    with pytest.raises(RuntimeError, match="dtype"):
        packed(torch.randn(4, 64))


def test_float32_layers_stay_as_they_are() -> None:
    assert pack_linears(layers(torch.float32), n_rows=64) == 0


def test_nothing_is_packed_where_torch_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "can_pack", lambda: False)
    assert pack_linears(layers(torch.bfloat16), n_rows=64) == 0
