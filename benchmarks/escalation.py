"""Escalating the riskiest test rows to a simulated judge that is right 90 % of the time.

Banking77 at 30 per label and CLINC150 at 10, official test sets, three seeds. No loop: the model
learns from the drawn rows alone. The judge sees the five best labels of a row, or says none.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cells import ALGORITHM, Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, encoder_of, job_of, load, train_alone, true_labels
from red_ray.config import JudgeConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.metrics import wilson_interval
from red_ray.core.router import top_labels
from red_ray.data.inputs import TestRows
from red_ray.data.prepare import HiddenLabels
from red_ray.escalation import Escalator
from red_ray.evaluation import baselines
from red_ray.evaluation.escalation import EscalatedRows, curve, escalate_riskiest
from red_ray.judges import Ledger, ValidatorPool, make_judge
from red_ray.model import RedModel
from red_ray.training import PoolValidator

SETS = (("banking77", 30), ("clinc150", 10))
JUDGE = JudgeConfig(spec="simulated:0.9")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
TARGET_SHARE, TARGET = 0.2, 0.945


def run(cell: Cell) -> Result:
    """One data set and seed."""
    use_one_blas_thread()
    config, inputs, test = load(cell["data"], cell["per_label"], cell["seed"])
    encoder = encoder_of(config)
    model = train_alone(job_of(config, inputs), encoder).model
    vectors = encoder.encode(test.rows.texts)
    truth = true_labels(model.labels, test)
    offered = top_labels(model.assess(test.rows.texts, vectors).label_proba, JUDGE.top_k)
    result: Result = {
        "flat": float((baselines.flat(model, vectors) == truth).mean()),
        "offered": float((offered == truth[:, None]).any(axis=1).mean()),
        "n_test": len(truth),
    }
    rows = asyncio.run(escalate(model, test, vectors, cell["seed"]))
    for point in curve(rows, SHARES):
        result[f"accuracy at {point['escalated']:g}"] = point["accuracy"]
        result[f"calls at {point['escalated']:g}"] = point["calls"]
    return result


async def escalate(
    model: RedModel, test: TestRows, vectors: np.ndarray, seed: int
) -> EscalatedRows:
    """Ask about as many of the riskiest test rows as the largest share has."""
    texts, labels = test.rows.texts, test.rows.labels
    truth = HiddenLabels.of_texts(zip(texts, labels, strict=True))
    judge = make_judge(JUDGE, seed=seed, hidden=truth.of)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        pool = ValidatorPool(judge, ledger, JUDGE)
        escalator = Escalator(model, PoolValidator(pool, judge.name), JUDGE, "abstain")
        assessment = model.assess(texts, vectors)
        rows = await escalate_riskiest(
            model, escalator, texts, labels, vectors, assessment, SHARES[-1]
        )
        await pool.close()
        ledger.close()
    return rows


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Accuracy in %, mean over seeds and 95 % interval of it; the judge is simulated."""
    heads = " | ".join(f"{data} {per_label}" for data, per_label in SETS)
    lines = [f"| simulated judge 0.9, top {JUDGE.top_k} | {heads} |"]
    lines.append("|" + "---|" * (len(SETS) + 1))
    named = [("flat, no judge", "flat"), ("red_ray, no judge", "accuracy at 0")]
    named += [(f"{share:.0%} escalated", f"accuracy at {share:g}") for share in SHARES[1:]]
    named += [("true label among the candidates", "offered")]
    for name, key in named:
        lines.append(f"| {name} | " + " | ".join(_cell(_of(done, *s), key) for s in SETS) + " |")
    calls = [_of(done, *s) for s in SETS]
    key = f"calls at {TARGET_SHARE:g}"
    cells = [f"{np.mean([r[key] for r in found]):,.0f}" if found else "–" for found in calls]
    lines.append(f"| calls at {TARGET_SHARE:.0%} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(_verdict(done, *s) for s in SETS)])


def _cell(found: Sequence[Result], key: str) -> str:
    return mean_interval([result[key] for result in found]) if found else "–"


def _verdict(done: Sequence[tuple[Cell, Result]], data: str, per_label: int) -> str:
    found = _of(done, data, per_label)
    if not found:
        return f"{data} {per_label}: not run."
    values = [result[f"accuracy at {TARGET_SHARE:g}"] for result in found]
    n_test = found[0]["n_test"]
    low, high = wilson_interval(round(float(np.mean(values)) * n_test), n_test)
    met = "met" if np.mean(values) >= TARGET else "MISSED"
    return (
        f"{data} {per_label}: {np.mean(values):.2%} at {TARGET_SHARE:.0%} escalated (target "
        f"{TARGET:.1%}: {met}); by seed {', '.join(f'{value:.2%}' for value in values)}; the "
        f"{n_test:,} test rows alone give {low:.1%} to {high:.1%}.  "
    )


def _of(done: Sequence[tuple[Cell, Result]], data: str, per_label: int) -> list[Result]:
    return [r for c, r in done if (c["data"], c["per_label"]) == (data, per_label)]


CELLS = [
    {"data": data, "per_label": per_label, "seed": seed}
    for seed in SEEDS
    for data, per_label in SETS
]

if __name__ == "__main__":
    sources = (*ALGORITHM, "escalation.py", "evaluation/escalation.py")
    main(Benchmark("escalation", CELLS, run, table, sources))
