"""How fast a fitted method answers: the same for every method, and the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.matrix.methods.base import Answers, Fitted
from benchmarks.matrix.tasks import Text
from red_ray.core.metrics import bootstrap_interval

N_WARM = 5
"""Texts that are answered before any is timed: models load and compile with the first ones."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What the report rows were answered, and how fast.

    Attributes:
        answers: of the report rows, in their order.
        figures: `latency_ms` of one text at a time, texts of train; `throughput_per_s` of the
            report rows, so many at a time. Prompts and tokens are made within the time; the
            graphics card has finished when it ends; the first texts are not in it. `usd`: what
            these rows cost of what is paid by the call; None where nothing is.
    """

    answers: Answers
    figures: dict[str, Any]


def timed(
    fitted: Fitted, known: Sequence[Text], report: Sequence[Text], *, n_single: int, batch_size: int
) -> Timed:
    """Answer the report rows once, and texts of train one by one before them.

    Args:
        fitted: the method.
        known: texts of train, so that one by one no report row is asked about twice.
        report: texts of the report rows.
        n_single: of `known`, at most, whose latency is taken.
        batch_size: report rows at a time.
    """
    warm = known[:N_WARM]
    fitted.predict(warm, 1)
    # Other texts than the warm ones: a judge would find their answers in its ledger.
    singles = known[N_WARM : N_WARM + n_single] or warm
    latencies = [_seconds(fitted, [text], 1)[0] * 1e3 for text in singles]
    if len(known) > N_WARM + n_single:
        fitted.predict(known[N_WARM + n_single :][:batch_size], batch_size)
    before = fitted.usd
    elapsed, answers = _seconds(fitted, report, batch_size)
    usd = None if before is None or fitted.usd is None else fitted.usd - before
    per_s = {"texts": len(report), "batch_size": batch_size, "per_s": len(report) / elapsed}
    figures = {"latency_ms": latency(latencies), "throughput_per_s": per_s, "usd": usd}
    return Timed(answers, figures)


def latency(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Quantiles and mean of single texts, with the interval of the 95th percentile."""
    values = np.asarray(milliseconds)
    p50, p95 = np.quantile(values, [0.5, 0.95])
    interval = bootstrap_interval(
        lambda rows: float(np.quantile(values[rows], 0.95)),
        len(values),
        rng=np.random.default_rng(0),
    )
    return {
        "p50": float(p50),
        "p95": float(p95),
        "p95_ci": list(interval),
        "mean": float(values.mean()),
        "n": len(values),
    }


def _seconds(fitted: Fitted, texts: Sequence[Text], batch_size: int) -> tuple[float, Answers]:
    _synchronise(fitted.device)
    start = perf_counter()
    answers = fitted.predict(texts, batch_size)
    _synchronise(fitted.device)
    return perf_counter() - start, answers


def _synchronise(device: str) -> None:
    """Wait for a graphics card: it answers before it has computed."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
