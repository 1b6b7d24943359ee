"""Linear layers with weights laid out once for the processor's matrix unit.

torch reorders a bfloat16 weight at every call. Keeping the reordered copy is what its own
compiler does; measured here: 10 to 15 % less time per batch, and the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def can_pack() -> bool:
    """True where torch has the operators; they are not part of its public interface."""
    import torch

    names = ("_reorder_linear_weight", "_linear_pointwise")
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available) and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack_linears(model: torch.nn.Module, *, n_rows: int) -> int:
    """Make every bfloat16 linear layer of `model` use a reordered copy of its weight.

    Args:
        model: changed in place; its parameters stay where they are.
        n_rows: rows of a typical input (texts x tokens), a hint for the layout.

    Returns:
        How many layers were packed; 0 where torch cannot.
    """
    import torch

    if not can_pack():
        return 0
    linears = [m for m in model.modules() if type(m) is torch.nn.Linear]
    chosen = [m for m in linears if m.weight.dtype == torch.bfloat16]
    for linear in chosen:
        linear.forward = _packed_forward(linear, n_rows)  # type: ignore[assignment,method-assign]
    return len(chosen)


def _packed_forward(linear: torch.nn.Linear, n_rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    import torch

    weight, bias = linear.weight.detach(), linear.bias
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), n_rows)

    def forward(input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.bfloat16:  # a model may compute a part in float32
            return torch.nn.functional.linear(input, linear.weight, bias)
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input, packed, bias, "none", [], ""
        )
        return output

    return forward
