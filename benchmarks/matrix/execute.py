"""One cell from its rows to its files, in a process of its own: `python -m …execute FOLDER`.

The process may be killed for its time or its memory at any moment; whoever started it writes why.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import pickle
import platform
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.matrix.config import Cell, Column
from benchmarks.matrix.confusion import confusion_picture
from benchmarks.matrix.measure import timed
from benchmarks.matrix.methods import UNREADABLE, Answers, Fitted, method_of
from benchmarks.matrix.metrics import quality
from benchmarks.matrix.results import HISTORY, PREDICTIONS, RESULTS
from benchmarks.matrix.tasks import Loaded, Rows, joined
from red_ray.core.blas import use_one_blas_thread
from red_ray.errors import RedRayError, last_line

ORDER, OUT, ENDED = "order.pickle", "out", "ended.json"
PACKAGES = ("torch", "transformers", "sentence-transformers", "setfit", "peft", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do.

    Attributes:
        cell: which one.
        column: its method and settings.
        loaded: its rows.
        n_single, batch_size: how it is measured; see `MatrixConfig`.
        keeps_model: whether what it trained is written.
    """

    cell: Cell
    column: Column
    loaded: Loaded
    n_single: int
    batch_size: int
    keeps_model: bool


def main(folder: Path) -> None:
    """Run the order in a folder; `ended.json` says how it went, `out` holds the files."""
    threading.Thread(target=_end_with, args=(os.getppid(), folder), daemon=True).start()
    order: Order = pickle.loads((folder / ORDER).read_bytes())
    use_one_blas_thread()
    out = folder / OUT
    out.mkdir()
    try:
        run(order, out)
        ended = {"status": "done", "error": ""}
    except Exception as error:  # noqa: BLE001 - a hole holds whatever it was; the others go on
        ended = {"status": _status(error), "error": _told(error)}
    (folder / ENDED).write_text(json.dumps(ended), encoding="utf-8")


def _end_with(parent: int, folder: Path) -> None:
    """Whoever started it may be killed: then nobody waits for this, nor removes its rows."""
    while os.getppid() == parent:
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def run(order: Order, out: Path) -> None:
    """Learn, answer, measure, write."""
    loaded, task = order.loaded, order.loaded.task
    method = method_of(order.column)  # libraries take seconds, which are no part of a training
    start, start_cpu = perf_counter(), process_time()
    fitted = method.fit(task, order.cell.seed)
    fit_s, fit_cpu_s = perf_counter() - start, process_time() - start_cpu
    try:
        measured = timed(
            fitted,
            task.everything.texts,
            loaded.report.texts,
            n_single=order.n_single,
            batch_size=order.batch_size,
        )
        figures = {
            **_quality(loaded, measured.answers),
            **measured.figures,
            "fit_s": fit_s,
            "fit_cpu_s": fit_cpu_s,
            "peak_gpu_mb": _peak_gpu_mb(fitted),
            **_facts(fitted, loaded),
        }
        _write(out / RESULTS, figures)
        _write(out / HISTORY, [dict(entry) for entry in fitted.history])
        write_answers(loaded, measured.answers, out)
        if order.keeps_model:
            (out / "best_model").mkdir()
            fitted.save(out / "best_model")
    finally:
        fitted.close()


def _quality(loaded: Loaded, answers: Answers) -> dict[str, Any]:
    counts = Counter(loaded.task.everything.labels.tolist())
    majority = min(counts, key=lambda label: (-counts[label], label))
    return quality(
        loaded.report.labels,
        answers.labels,
        loaded.task.labels,
        positive=loaded.positive,
        majority=majority,
    )


def _facts(fitted: Fitted, loaded: Loaded) -> dict[str, Any]:
    return {
        "n_parameters": fitted.n_parameters,
        "n_trained": fitted.n_trained,
        "device": fitted.device,
        "machine": _machine(fitted.device),
        "notes": list(fitted.notes),
        "n_train": len(loaded.task.train),
        "n_select": len(loaded.task.select),
        "n_leaks": loaded.n_leaks,
        "report_key": loaded.report_key,
        "train_key": loaded.train_key,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _machine(device: str) -> str:
    """The model of the card, or of the processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def write_answers(loaded: Loaded, answers: Answers, out: Path) -> None:
    """The predictions with their texts, the picture of the confusions, the errors."""
    labels, columns = loaded.task.labels, loaded.task.columns
    report: Rows = loaded.report
    texts = [joined(text, columns) for text in report.texts]
    true = [labels[at] for at in report.labels]
    answered = ["" if at == UNREADABLE else labels[at] for at in answers.labels]
    raw = list(answers.raw) or [""] * len(texts)
    rows = {"text": texts, "true": true, "answered": answered, "raw": raw}
    pq.write_table(pa.table(rows), out / PREDICTIONS)
    picture = confusion_picture(report.labels, answers.labels, labels)
    (out / "confusion.svg").write_text(picture, encoding="utf-8")
    with (out / "errors.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        together = zip(texts, true, answered, raw, strict=True)
        writer.writerows(row for row in together if row[1] != row[2])


def _peak_gpu_mb(fitted: Fitted) -> float | None:
    if fitted.device != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated() / 1e6


def _status(error: Exception) -> str:
    """Whether memory ended it: torch says so by a class of its own, on a card and off it."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return "out_of_memory" if isinstance(error, MemoryError) or named else "failed"


def _told(error: Exception) -> str:
    said = str(error) if isinstance(error, RedRayError) else last_line(error)
    return said or type(error).__name__


def _write(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
