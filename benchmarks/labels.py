"""Labels that live: a label added, merged away or retired, against training from scratch.

Banking77 at 10 per label, official test set, no judge; 20 labels in turn. `add` holds the label
out, trains, and adds it back with its 10 examples; `merge` makes it one with the nearest label;
`retire` removes it. Each is held against training from scratch on the same rows and labels. Seconds
are of the change itself with cached embeddings, in memory; `undo` is by the run's folder.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import ALGORITHM, Benchmark, Cell, Result, main
from benchmarks.data import encoder_of, job_of, load, train_alone
from red_ray import labels
from red_ray.bundle import bundle_id_of, save_bundle
from red_ray.core.blas import use_one_blas_thread
from red_ray.crossfit_file import load_crossfit, save_crossfit
from red_ray.data.inputs import Inputs
from red_ray.data.prepare import LabelledRows
from red_ray.evaluation.details import run_details
from red_ray.labels.of_run import OpenRun, keep, open_run, undo
from red_ray.labels.placing import MOST
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, write_snapshot
from red_ray.training import Trained

DATA, PER_LABEL, SEED = "banking77", 10, 0
N_LABELS = 20
CHANGES = ("add", "merge", "retire")
TARGET_S, TARGET_POINTS = 2.0, 0.5


@cache
def rows():  # type: ignore[no-untyped-def]
    return load(DATA, PER_LABEL, SEED)


@cache
def trained(but: str | None = None) -> Trained:
    """From scratch on all rows, or on those of all labels but one."""
    config, inputs, _ = rows()
    return train_alone(job_of(config, without(inputs, but)), encoder_of(config))


def without(inputs: Inputs, label: str | None) -> Inputs:
    kept = [at for at, one in enumerate(inputs.train.labels) if one != label]
    return dataclasses.replace(inputs, train=inputs.train.take(kept))


def renamed(inputs: Inputs, names: Sequence[str], into: str) -> Inputs:
    named = tuple(into if one in names else one for one in inputs.train.labels)
    return dataclasses.replace(inputs, train=LabelledRows(inputs.train.texts, named))


def run(cell: Cell) -> Result:
    """One change of one label."""
    use_one_blas_thread()
    name, kind = str(cell["label"]), str(cell["change"])
    inputs = rows()[1]
    partner = nearest(trained().model, name)
    before = trained(name if kind == "add" else None)
    with tempfile.TemporaryDirectory() as folder:
        left = without(inputs, name if kind == "add" else None)
        run_folder = as_run(Path(folder) / "run", before, left)
        state = open_run(run_folder)
        start, cpu = time.perf_counter(), time.process_time()
        done = changed(state, kind, name, partner)
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        first, start = state.model.bundle_id, time.perf_counter()
        kept = keep(state, done, state.rows, what=kind)
        keep_s = time.perf_counter() - start
        second = bundle_id_of(run_folder.bundle)
        undo(run_folder)
        is_back = bundle_id_of(run_folder.bundle) == first != second == kept.bundle_id
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "keep_s": keep_s,
        "load": os.getloadavg()[0],
        "experts": len(done.experts),
        "accuracy": accuracy(done.model, kind, name, partner),
        "scratch": from_scratch(kind, name, partner),
        "same_bits": same_bits(state.model, done),
        "undone": bool(is_back),
    }


def changed(state: OpenRun, kind: str, name: str, partner: str) -> labels.Change:
    """The change in memory, as a command makes it."""
    inputs, encoder = rows()[1], encoder_of(rows()[0])
    model, crossfit = state.model, state.crossfit
    if kind == "add":
        pairs = zip(inputs.train.texts, inputs.train.labels, strict=True)
        texts = [text for text, label in pairs if label == name]
        return labels.add(model, crossfit, name, texts, encoder=encoder)
    if kind == "merge":
        return labels.merge(model, crossfit, [name, partner], name, encoder=encoder)
    return labels.retire(model, crossfit, name, encoder=encoder)


@cache
def scratch_of_all() -> float:
    return accuracy(trained().model, "add", "", "")


def from_scratch(kind: str, name: str, partner: str) -> float:
    """Accuracy of a model trained on the rows and labels that the change ends with."""
    if kind == "add":
        return scratch_of_all()
    if kind == "retire":
        return accuracy(trained(name).model, kind, name, partner)
    config, inputs, _ = rows()
    job = job_of(config, renamed(inputs, [name, partner], name))
    return accuracy(train_alone(job, encoder_of(config)).model, kind, name, partner)


def nearest(model: RedModel, name: str) -> str:
    """The label whose examples lie nearest to those of another."""
    sums = np.zeros((len(model.labels), model.example_vectors.shape[1]))
    np.add.at(sums, model.example_labels, model.example_vectors)
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    at = model.labels.index(name)
    similarity = sums @ sums[at]
    similarity[at] = -1
    return model.labels[int(similarity.argmax())]


def as_run(path: Path, before: Trained, inputs: Inputs) -> RunFolder:
    """A run's folder as training leaves it."""
    folder = RunFolder.create(path, before.model.config)
    folder.write_seen(inputs.seen_keys)
    write_snapshot(path, Snapshot(inputs, None))
    save_crossfit(path, before.model, before.crossfit)
    save_bundle(before.model, folder.bundle, {})
    folder.write_json("details.json", run_details(before, None))
    folder.finish()
    if load_crossfit(path, before.model) is None:
        raise RuntimeError("the run keeps no held-out scores")
    return folder


def accuracy(model: RedModel, kind: str, name: str, partner: str) -> float:
    """On the test rows, those of a merged label under its new name, a retired one's left out."""
    config, _, test = rows()
    names = {partner: name} if kind == "merge" else {}
    pairs = zip(test.rows.texts, test.rows.labels, strict=True)
    kept = [
        (text, names.get(label, label))
        for text, label in pairs
        if kind != "retire" or label != name
    ]
    texts = [text for text, _ in kept]
    proba = model.assess(texts, encoder_of(config).encode(texts)).label_proba
    best = [model.labels[at] for at in proba.argmax(axis=1)]
    return float(np.mean([a == b for a, (_, b) in zip(best, kept, strict=True)]))


def same_bits(before: RedModel, done: labels.Change) -> bool:
    """Whether every expert that was not refitted is what it was."""
    old = {
        tuple(before.labels[i] for i in subset): expert
        for subset, expert in zip(before.subsets, before.experts, strict=True)
    }
    refitted = {int(name.removeprefix("expert-")) for name in done.experts}
    model = done.model
    left = [at for at in range(len(model.subsets)) if at not in refitted]
    return all(
        bits(old.get(tuple(model.labels[i] for i in model.subsets[at]))) == bits(model.experts[at])
        for at in left
    )


def bits(expert: Any) -> bytes:
    return b"" if expert is None else bytes(expert.weights.tobytes() + expert.bias.tobytes())


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Means over the labels; differences to training from scratch are paired."""
    lines = [
        "| Banking77, 10 per label | add | merge | retire |",
        "|---|---|---|---|",
    ]
    of = [[r for c, r in done if c["change"] == kind] for kind in CHANGES]
    for name, told in FIGURES:
        cells = [told(results) if results else "–" for results in of]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(
        f"\nTargets: at most {TARGET_S:g} s, at most {MOST} experts, within {TARGET_POINTS:g} "
        "points of training from scratch on the mean."
    )
    return "\n".join(lines)


def spread(results: Sequence[Result], key: str) -> str:
    values = [r[key] for r in results]
    return f"{np.median(values):.2f} ({max(values):.2f})"


def difference(results: Sequence[Result]) -> str:
    """Mean, and half-width of its 95 % interval over labels."""
    points = 100 * np.array([r["accuracy"] - r["scratch"] for r in results])
    if len(points) < 2:
        return f"{points.mean():+.2f}"
    # Student's t at 19 degrees of freedom is 2.09; near it for any number of labels here.
    return f"{points.mean():+.2f} ± {2.09 * points.std(ddof=1) / np.sqrt(len(points)):.2f}"


def share(results: Sequence[Result], key: str) -> str:
    return f"{sum(bool(r[key]) for r in results)} of {len(results)}"


def mean(results: Sequence[Result], key: str, scale: float = 100.0, digits: int = 2) -> str:
    return f"{scale * np.mean([r[key] for r in results]):.{digits}f}"


def experts(results: Sequence[Result]) -> str:
    return f"{mean(results, 'experts', 1, 1)} ({max(r['experts'] for r in results)})"


def worst(results: Sequence[Result]) -> str:
    return f"{100 * min(r['accuracy'] - r['scratch'] for r in results):+.2f}"


FIGURES: tuple[tuple[str, Callable[[Sequence[Result]], str]], ...] = (
    ("labels", lambda r: str(len(r))),
    ("seconds, median (worst)", lambda r: spread(r, "seconds")),
    ("processor seconds, median (worst)", lambda r: spread(r, "cpu_s")),
    ("load of the two cores meanwhile", lambda r: mean(r, "load", 1, 1)),
    ("seconds to write the run, median (worst)", lambda r: spread(r, "keep_s")),
    ("experts refitted, mean (most)", experts),
    ("accuracy after, %", lambda r: mean(r, "accuracy")),
    ("trained from scratch, %", lambda r: mean(r, "scratch")),
    ("difference, points", difference),
    ("worst label, points", worst),
    ("other experts bit for bit as they were", lambda r: share(r, "same_bits")),
    ("undo restores the bundle id", lambda r: share(r, "undone")),
)


def cells() -> list[Cell]:
    _, inputs, _ = rows()
    names = sorted(set(inputs.train.labels))
    chosen = names[:: len(names) // N_LABELS + 1][:N_LABELS]
    return [{"change": kind, "label": name} for kind in CHANGES for name in chosen]


SOURCES = (*ALGORITHM, "labels", "history.py", "crossfit_file.py")

if __name__ == "__main__":
    main(Benchmark("labels", cells(), run, table, SOURCES))
