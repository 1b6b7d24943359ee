"""The training curve of a cell: which epoch was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def best_epoch(history: Sequence[Mapping[str, float]]) -> int | None:
    """The epoch whose weights are kept: the most accurate on the rows held back, then least loss.

    Of equal ones the first. Epoch 0, the model before the training, is measured but never kept.

    Args:
        history: one entry an epoch; see `Fitted.history`.

    Returns:
        Its number; None where no epoch was measured on rows held back.
    """
    trained = [one for one in history if one["epoch"] > 0 and "select_accuracy" in one]
    if not trained:
        return None

    def rank(entry: Mapping[str, float]) -> tuple[float, float]:
        loss = entry.get("select_loss", math.nan)
        return entry["select_accuracy"], -math.inf if math.isnan(loss) else -loss

    return int(max(trained, key=rank)["epoch"])
