"""The accuracy mode: fine-tuned experts beside cheaper ones and beside SetFit's own library.

Banking77 and CLINC150, rows drawn from train, official test set, no judge, MiniLM weights in every
method. Times are CPU seconds of a process of its own, so that other work on the machine counts
little; on two quiet cores the fine-tunings take half of them. The library is given as many
optimiser steps, of as many texts, as the encoder that answers took; and, separately, the CPU
seconds of the whole fit, in which we fine-tune six times to have held-out scores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from time import process_time

import numpy as np

from benchmarks.accuracy_subsets import SubsetRun
from benchmarks.cells import Benchmark, Cell, Result, cell_name, kept, main, mean_interval
from benchmarks.data import encoder_of, job_of, load, train_alone, true_labels
from benchmarks.scale_data import labels_of, train_rows
from benchmarks.watched import Tell, watched
from red_ray.config import load_config
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.evidence import Column
from red_ray.core.metrics import brier_score, expected_calibration_error
from red_ray.data.inputs import TestRows
from red_ray.encoding import open_encoder
from red_ray.encoding.files import find_model
from red_ray.encoding.tuning import n_steps
from red_ray.evaluation import baselines
from red_ray.model import RedModel
from red_ray.training import TrainingJob

SETS = (("banking77", 10), ("banking77", 30), ("clinc150", 10), ("clinc150", 30))
SEEDS = {10: (0, 1, 2), 30: (0,)}
MINILM = {"model": "all-MiniLM-L6-v2", "truncate_dim": None, "prompt": ""}
MODES = {
    "speed": {},
    "forest": {"expert": {"kind": "random_forest"}},
    "accuracy": {"mode": "accuracy", "encoder": MINILM},
}
SUBSETS = "an encoder each"
MANY, N_MANY = "1,000 labels", 1_000
LIBRARY = ("library, same steps", "library, same time")
N_TIMED = 500
"""Texts on which the cost of a prediction is measured."""


def run(cell: Cell) -> Result:
    """One data set, rows per label, seed and method."""
    phases, result = watched(_step, cell)
    fit = phases["fit"]
    return result | {"fit_s": fit["s"], "fit_cpu_s": fit["cpu_s"], "fit_peak_mb": fit["peak_mb"]}


def _step(cell: Cell, tell: Tell) -> Result:
    """In a process of its own, whose time and memory are watched."""
    use_one_blas_thread()
    method = cell["method"]
    if method == SUBSETS:
        return _subsets(cell, tell)
    if method == MANY:
        return _many(cell, tell)
    return _library(cell, tell) if method in LIBRARY else _mode(cell, tell)


def _mode(cell: Cell, tell: Tell) -> Result:
    overrides = MODES[cell["method"]]
    config, inputs, test = load(cell["data"], cell["per_label"], cell["seed"], overrides)
    plain = encoder_of(config)
    plain.encode([*inputs.train.texts, *test.rows.texts])  # each text is encoded once ever
    with tempfile.TemporaryDirectory() as store:
        # Of its own: a fine-tuning that was done before would cost nothing.
        own = config.model_copy(
            update={"encoder": config.encoder.model_copy(update={"store": store})}
        )
        tell("fit")
        model = train_alone(job_of(own, inputs), plain).model
        tell("score")
        truth = true_labels(model.labels, test)
        figures = _figures(model, plain.encode(test.rows.texts), test, truth)
    return figures | _prediction(model, test)


def _many(cell: Cell, tell: Tell) -> Result:
    """A fit with more labels than any real set has, half of them made; its time and memory."""
    config = load_config(None, MODES["accuracy"] | {"seed": cell["seed"]})
    rng = np.random.default_rng(cell["seed"])
    labels = labels_of(N_MANY)
    texts, of_label, _ = train_rows(labels, cell["per_label"], rng)
    with tempfile.TemporaryDirectory() as store:
        own = config.encoder.model_copy(update={"store": store})
        config = config.model_copy(update={"encoder": own})
        plain = encoder_of(config)
        plain.encode(texts)
        names = tuple(labels.names[label] for label in of_label)
        tell("fit")
        trained = train_alone(TrainingJob(tuple(texts), names, (), {}, config), plain)
        tell("score")
    return {"estimate": trained.estimate.accuracy, "n_labels": N_MANY}


def _figures(model: RedModel, vectors: np.ndarray, test: TestRows, truth: np.ndarray) -> Result:
    texts = test.rows.texts
    flat = baselines.flat(model, vectors)
    if model.tuned is not None:
        with closing(open_encoder(model.config.encoder, tuned=model.tuned)) as encoder:
            vectors = np.hstack([vectors, encoder.encode(texts)])
    evidence = np.concatenate(list(model.evidence(texts, vectors)))
    gate = evidence[:, :, Column.GATE].argmax(axis=1)
    proba = model.assess_evidence(evidence).label_proba
    right = proba.argmax(axis=1) == truth
    return {
        "accuracy": float(right.mean()),
        "flat": float((flat == truth).mean()),
        "gate": float((gate == truth).mean()),
        "ece": expected_calibration_error(proba.max(axis=1), right),
        "brier": brier_score(proba, truth),
        "n_test": len(truth),
    }


def _prediction(model: RedModel, test: TestRows) -> Result:
    """CPU milliseconds for a text, model and encoder loaded, nothing from a store."""
    model.predict(test.rows.texts[:32])  # loads
    start = process_time()
    model.predict(test.rows.texts[:N_TIMED])
    return {"predict_cpu_ms": 1e3 * (process_time() - start) / N_TIMED}


def _subsets(cell: Cell, tell: Tell) -> Result:
    """An encoder of its own for each subset: fine-tuned on its labels and as many near ones."""
    rows = cell["data"], cell["per_label"], cell["seed"]
    config, inputs, test = load(*rows, MODES["accuracy"])
    plain = encoder_of(config)
    test_vectors = plain.encode(test.rows.texts)
    model = train_alone(job_of(load(*rows)[0], inputs), plain).model
    with tempfile.TemporaryDirectory() as store:
        encoder = config.encoder.model_copy(update={"store": store})
        config = config.model_copy(update={"encoder": encoder})
        tell("fit")
        experts, router = SubsetRun(config, model, inputs).fitted()
        tell("score")
        start = process_time()
        scores = [one.scores(test.rows.texts) for one in experts]
    evidence = np.concatenate(list(model.evidence(test.rows.texts, test_vectors, scores)))
    proba = np.exp(router.label_log_proba(evidence))
    truth = true_labels(model.labels, test)
    cost = 1e3 * (process_time() - start) / len(truth)
    return {
        "accuracy": float((proba.argmax(axis=1) == truth).mean()),
        "predict_cpu_ms": cost,
    }


def _library(cell: Cell, tell: Tell) -> Result:
    """Plain SetFit: the library's model, trainer and defaults, all labels in one model."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    config, inputs, test = load(cell["data"], cell["per_label"], cell["seed"])
    labels = sorted(set(inputs.train.labels))
    index = {label: position for position, label in enumerate(labels)}
    model = SetFitModel.from_pretrained(str(find_model(config.encoder.model)), labels=labels)
    rows = {"text": list(inputs.train.texts), "label": [index[x] for x in inputs.train.labels]}
    # A pair is two texts: half as many pairs as our batches have texts.
    settings = load_config(None, MODES["accuracy"]).setfit
    batch = settings.labels_per_batch * settings.texts_per_label // 2
    # Known beforehand, since the learning rate falls with the steps to the last one.
    steps = n_steps(len(rows["text"]) + len(labels), settings)  # names of labels are texts too
    if cell["method"] == LIBRARY[1]:
        ours, theirs = _of_method(cell, "accuracy"), _of_method(cell, LIBRARY[0])
        steps = round(steps * ours["fit_cpu_s"] / theirs["fit_cpu_s"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=batch,
            max_steps=steps,
            seed=cell["seed"],
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows))
        tell("fit")
        trainer.train()
    tell("score")
    truth = true_labels(tuple(labels), test)
    start = process_time()
    proba = model.predict_proba(list(test.rows.texts), as_numpy=True)
    cost = 1e3 * (process_time() - start) / len(truth)
    return {
        "accuracy": float((proba.argmax(axis=1) == truth).mean()),
        "steps": steps,
        "predict_cpu_ms": cost,
    }


def _of_method(cell: Cell, method: str) -> Result:
    """The result of another method on the same rows, which is run first."""
    other = {**cell, "method": method}
    result = kept(BENCHMARK, other)
    if result is None:
        raise SystemExit(f"run the cell {cell_name(other)!r} first: the steps follow from its time")
    return result


ROWS: tuple[tuple[str, str, str], ...] = (
    ("flat", "speed", "flat"),
    ("logistic-regression experts (`speed`)", "speed", "accuracy"),
    ("random-forest experts", "forest", "accuracy"),
    ("fine-tuned encoder, one flat head", "accuracy", "gate"),
    ("**SetFit experts (`accuracy`)**", "accuracy", "accuracy"),
    ("SetFit experts with an encoder each", SUBSETS, "accuracy"),
    ("SetFit's library, same steps", LIBRARY[0], "accuracy"),
    ("SetFit's library, same time", LIBRARY[1], "accuracy"),
)


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Accuracy in %, mean over seeds; the mean over the four sets above flat; times."""
    heads = " | ".join(f"{data} {per_label}" for data, per_label in SETS)
    lines = [
        f"| accuracy, % | {heads} | mean over flat | fit, CPU s (banking77 10) | a text, CPU ms |",
        "|" + "---|" * (len(SETS) + 4),
    ]
    for title, method, key in ROWS:
        cells = [_of(done, data, n, method) for data, n in SETS]
        shown = [
            mean_interval([r[key] for r in found if key in r]) if found else "–" for found in cells
        ]
        fit, predict = _mean(cells[0], "fit_cpu_s"), _mean(cells[0], "predict_cpu_ms")
        own = key == "accuracy"
        times = (f"{fit:.0f}", f"{predict:.1f}") if cells[0] and own else ("–", "–")
        lines.append(
            f"| {title} | "
            + " | ".join(shown)
            + f" | {_over_flat(done, method, key)} | {times[0]} | {times[1]} |"
        )
    lines += ["", *_bounds(done)]
    return "\n".join(lines)


def _bounds(done: Sequence[tuple[Cell, Result]]) -> list[str]:
    """Time and memory of a fit of the accuracy mode."""
    told = []
    for cell, result in done:
        if cell["method"] == MANY or (cell["method"], cell["seed"]) == ("accuracy", 0):
            what = cell["method"] if cell["method"] == MANY else cell["data"]
            told.append(
                f"Fit, {what} at {cell['per_label']}: {result['fit_cpu_s']:,.0f} CPU s "
                f"({result['fit_s']:,.0f} s of the clock), peak {result['fit_peak_mb']:,.0f} MB.  "
            )
    return told


def _of(
    done: Sequence[tuple[Cell, Result]], data: str, per_label: int, method: str
) -> list[Result]:
    wanted = (data, per_label, method)
    return [r for c, r in done if (c["data"], c["per_label"], c["method"]) == wanted]


def _mean(found: Sequence[Result], key: str) -> float:
    return float(np.mean([one[key] for one in found])) if found else float("nan")


def _over_flat(done: Sequence[tuple[Cell, Result]], method: str, key: str) -> str:
    """Mean over the sets of the mean over seeds; only where all four are there."""
    gains = []
    for data, per_label in SETS:
        found, flat = _of(done, data, per_label, method), _of(done, data, per_label, "speed")
        if not found or len(found) != len(flat):
            return "–"
        gains.append(_mean(found, key) - _mean(flat, "flat"))
    return f"{100 * float(np.mean(gains)):+.2f}"


CELLS = [
    {"data": data, "per_label": per_label, "seed": seed, "method": method}
    for method in (*MODES, *LIBRARY)
    for data, per_label in SETS
    for seed in SEEDS[per_label]
]
CELLS += [
    {"data": "banking77", "per_label": 10, "seed": 0, "method": SUBSETS},
    {"data": "scale", "per_label": 20, "seed": 0, "method": MANY},
]

BENCHMARK = Benchmark("accuracy", CELLS, run, table)

if __name__ == "__main__":
    main(BENCHMARK)
