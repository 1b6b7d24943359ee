"""With the simulated judge, right 90 % of the time: Banking77 from 10 per label, 1,000 calls.

The loop as shipped, in `verify` mode, and with random instead of informative texts.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, encoder_of, job_of, load, true_labels
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.metrics import expected_calibration_error
from red_ray.data.inputs import Inputs
from red_ray.encoding import CachedEncoder
from red_ray.evaluation import baselines
from red_ray.judges import Ledger, PoolStats, ValidatorPool, make_judge
from red_ray.training import LocalFleet, PoolValidator, Trained, Trainer, TrainingJob

JUDGE = {"spec": "simulated:0.9", "budget_calls": 1000}
VARIANTS: dict[str, dict[str, object]] = {
    "choose, margin": {"judge": JUDGE},
    "verify, margin": {"judge": JUDGE | {"question": "verify"}},
    "choose, random": {"judge": JUDGE, "loop": {"acquisition": "random"}},
    "choose, margin, confused pairs first": {"judge": JUDGE, "loop": {"pairs_first": True}},
    "choose, entropy": {"judge": JUDGE, "loop": {"acquisition": "entropy"}},
}


def run(cell: Cell) -> Result:
    """One variant and seed."""
    use_one_blas_thread()
    config, inputs, test = load("banking77", 10, cell["seed"], VARIANTS[cell["variant"]])
    encoder = encoder_of(config)
    trained, stats = train(job_of(config, inputs, pool=True), encoder, inputs)
    model = trained.model
    vectors = encoder.encode(test.rows.texts)
    truth = true_labels(model.labels, test)
    proba = model.assess(test.rows.texts, vectors).label_proba
    proba = proba / proba.sum(axis=1, keepdims=True)
    correct = proba.argmax(axis=1) == truth
    flat = baselines.flat(model, vectors)
    added = list(zip(model.example_texts, model.example_labels, strict=True))[model.n_seed :]
    right = sum(inputs.hidden.of(text) == model.labels[label] for text, label in added)
    rounds = trained.iterations
    return {
        "accuracy": float(correct.mean()),
        "flat, same rows": float((flat == truth).mean()),
        "ece": expected_calibration_error(proba.max(axis=1), correct),
        "calls": stats.requests,
        "labels per call": len(added) / stats.requests,
        "label precision": right / len(added),
        "iteration s": float(np.mean([i.fit_s + i.score_s + i.acquire_s for i in rounds])),
        "worst iteration s": max(i.fit_s + i.score_s + i.acquire_s for i in rounds),
    }


def train(job: TrainingJob, encoder: CachedEncoder, inputs: Inputs) -> tuple[Trained, PoolStats]:
    """Run the loop in this process, with a ledger on disk."""

    async def run_to_end(folder: Path) -> tuple[Trained, PoolStats]:
        judge = make_judge(
            job.config.judge, seed=job.config.seed, hidden=inputs.hidden.joined(inputs.train).of
        )
        ledger = Ledger(folder / "ledger.sqlite")
        pool = ValidatorPool(judge, ledger, job.config.judge)
        fleet = LocalFleet(encoder)
        trainer = Trainer(job, fleet, PoolValidator(pool, judge.name))
        async for _ in trainer.run():
            pass
        fleet.close()
        await pool.close()
        ledger.close()
        return trainer.result(), pool.stats()

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run_to_end(Path(folder)))


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Mean over seeds and 95 % interval; the judge is simulated."""
    columns = (
        ("accuracy", 100, 2),
        ("flat, same rows", 100, 2),
        ("ece", 100, 2),
        ("calls", 1, 0),
        ("labels per call", 1, 3),
        ("label precision", 1, 3),
        ("iteration s", 1, 2),
        ("worst iteration s", 1, 2),
    )
    lines = ["| simulated judge 0.9 | " + " | ".join(name for name, _, _ in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for variant in VARIANTS:
        results = [result for cell, result in done if cell["variant"] == variant]
        if results:
            cells = [mean_interval([r[n] for r in results], s, d) for n, s, d in columns]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


CELLS = [{"variant": variant, "seed": seed} for seed in SEEDS for variant in VARIANTS]

if __name__ == "__main__":
    main(Benchmark("judge_loop", CELLS, run, table))
