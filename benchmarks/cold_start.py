"""From label names alone: Banking77, 2,000 calls to a simulated judge that is right 90 %.

The pool are the texts of the training file without their labels. Beside it 10 labelled rows per
label without a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, encoder_of, job_of, load, train_alone, true_labels
from benchmarks.judge_loop import train
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.metrics import expected_calibration_error
from red_ray.data.inputs import Inputs, TestRows
from red_ray.data.prepare import LabelledRows
from red_ray.encoding import CachedEncoder
from red_ray.model import RedModel
from red_ray.training import Trained, TrainingJob
from red_ray.types import FIRST_EXAMPLES

JUDGE = {"spec": "simulated:0.9", "budget_calls": 2000}
# More rounds than the budget lasts: it is what ends the run.
COLD: dict[str, object] = {"judge": JUDGE, "loop": {"max_iterations": 40}}
VARIANTS = ("cold start, 2,000 calls", "10 per label, no judge")


def run(cell: Cell) -> Result:
    """One variant and seed."""
    use_one_blas_thread()
    if cell["variant"] == VARIANTS[0]:
        return _cold(cell["seed"])
    config, inputs, test = load("banking77", 10, cell["seed"])
    encoder = encoder_of(config)
    trained = train_alone(job_of(config, inputs), encoder)
    return _scored(trained.model, encoder, test) | _estimated(trained)


def _cold(seed: int) -> Result:
    config, drawn, test = load("banking77", 10, seed, COLD)
    inputs = without_labels(drawn)
    encoder = encoder_of(config)
    names = tuple(sorted(set(drawn.train.labels)))
    job = TrainingJob((), (), inputs.pool, {}, config, names)
    trained, stats = train(job, encoder, inputs)
    return (
        _scored(trained.model, encoder, test)
        | _estimated(trained)
        | _found(trained, inputs)
        | {"calls": stats.requests, "stopped": trained.stop_reason}
    )


def without_labels(inputs: Inputs) -> Inputs:
    """The labelled rows in the pool, their labels hidden from all but the simulated judge."""
    hidden = inputs.hidden.joined(inputs.train)
    pool = (*inputs.train.texts, *inputs.pool)
    return replace(inputs, train=LabelledRows((), ()), pool=pool, hidden=hidden)


def _scored(model: RedModel, encoder: CachedEncoder, test: TestRows) -> Result:
    vectors = encoder.encode(test.rows.texts)
    truth = true_labels(model.labels, test)
    proba = model.assess(test.rows.texts, vectors).label_proba
    proba = proba / proba.sum(axis=1, keepdims=True)
    correct = proba.argmax(axis=1) == truth
    return {
        "accuracy": float(correct.mean()),
        "ece": expected_calibration_error(proba.max(axis=1), correct),
        "n_labels": len(model.labels),
    }


def _estimated(trained: Trained) -> Result:
    # In a cold start with the judge's labels, some wrong and most of hard texts.
    return {"agrees with rows held back": trained.estimate.accuracy}


def _found(trained: Trained, inputs: Inputs) -> Result:
    model = trained.model
    added = zip(model.example_texts, model.example_labels, strict=True)
    right = [inputs.hidden.of(text) == model.labels[label] for text, label in added]
    first = [one for one in trained.iterations if one.phase == FIRST_EXAMPLES]
    return {
        "label precision": sum(right) / len(right),
        "labels found": len(right),
        "first calls": sum(one.n_asked for one in first),
        "first rounds": len(first),
        "labels with a name alone": len(model.unseen),
    }


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Mean over seeds and 95 % interval; the judge is simulated."""
    columns = (
        ("accuracy", 100, 2),
        ("agrees with rows held back", 100, 2),
        ("ece", 100, 2),
        ("calls", 1, 0),
        ("labels found", 1, 0),
        ("label precision", 1, 3),
        ("first calls", 1, 0),
        ("first rounds", 1, 1),
        ("labels with a name alone", 1, 1),
    )
    lines = ["| simulated judge 0.9 | " + " | ".join(name for name, _, _ in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for variant in VARIANTS:
        results = [result for cell, result in done if cell["variant"] == variant]
        if results:
            cells = [
                mean_interval([r[n] for r in results], s, d) if n in results[0] else "–"
                for n, s, d in columns
            ]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


CELLS = [{"variant": variant, "seed": seed} for seed in SEEDS for variant in VARIANTS]

if __name__ == "__main__":
    main(Benchmark("cold_start", CELLS, run, table))
