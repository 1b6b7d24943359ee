"""Matrices on disk, made of planted answers, as the runner would write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.matrix.config import Cell, MatrixConfig, load_matrix
from benchmarks.matrix.metrics import quality
from benchmarks.matrix.results import CELL, HISTORY, MATRIX, PREDICTIONS, RESULTS, USES

LABELS = ("no", "yes")
METHODS: dict[str, dict[str, Any]] = {
    "majority": {"method": "majority"},
    "flat": {"method": "flat"},
    "setfit": {"method": "setfit"},
    "RED speed": {"method": "red_ray"},
    "BERT": {"method": "fine_tune", "model": "bert-base-uncased"},
    "Qwen zero": {"method": "zero_shot", "model": "qwen-0.5b"},
    "Qwen few": {"method": "few_shot", "model": "qwen-0.5b", "base": "Qwen zero"},
    "Qwen LoRA": {"method": "lora", "model": "qwen-0.5b", "base": "Qwen zero"},
    "judge": {"method": "judge", "judge": "neighbours"},
}


class Planted:
    """A matrix's folder in the making.

    Attributes:
        folder: where it is.
        config: its configuration.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str] = ("flat", "BERT"),
        *,
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
        seeds: Sequence[int] = (0, 1, 2),
        **more: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": "planted",
            "seeds": list(seeds),
            "tasks": tasks or {"sst2": {"path": "sst2", "per_label": 40}},
            "columns": [
                {
                    key: value
                    for key, value in {"name": name, **METHODS[name]}.items()
                    if key != "base" or value in columns
                }
                for name in columns
            ],
            **more,
        }
        (folder / MATRIX).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        self.config: MatrixConfig = load_matrix(folder / MATRIX)
        self._used: set[str] = set()

    def cell(
        self,
        column: str,
        right: np.ndarray | Callable[[np.random.Generator], np.ndarray] | float,
        *,
        seed: int = 0,
        task: str = "sst2",
        n: int = 200,
        true: np.ndarray | None = None,
        labels: Sequence[str] = LABELS,
        unreadable: Sequence[int] = (),
        answered: np.ndarray | None = None,
        method: str | None = None,
        history: Sequence[Mapping[str, float]] = (),
        salt: str = "",
        **figures: Any,
    ) -> Path:
        """Write a finished cell.

        Args:
            column: its name.
            right: whether each row is right, or a share.
            seed: of the cell.
            task: its name.
            n: rows; the first half of them is of the first label, where `true` is not given.
            true: index of each row's label.
            labels: of the task.
            unreadable: rows whose answer could not be read.
            answered: instead of `right`, the index of each answer.
            method: that the folder states; by default the column's.
            history: of its training.
            salt: makes the rows others.
            figures: of `results.json`, over those that are planted.
        """
        true = np.arange(n) * len(labels) // n if true is None else true
        rng = np.random.default_rng([seed, len(column), sum(map(ord, column + task))])
        if answered is None:
            hit = rng.random(len(true)) < right if isinstance(right, float) else np.asarray(right)
            answered = np.where(hit, true, (true + 1) % len(labels))
        answered = np.array(answered)
        answered[list(unreadable)] = -1
        place = self.folder / Cell(task, column, seed).name
        place.mkdir(exist_ok=True)
        rows = {
            "text": [f"{salt}{task} text {at}" for at in range(len(true))],
            "true": [labels[at] for at in true],
            "answered": [labels[at] if at >= 0 else "" for at in answered],
            "raw": ["" for _ in true],
        }
        pq.write_table(pa.table(rows), place / PREDICTIONS)
        key = hashlib.sha256(json.dumps([rows["text"], rows["true"]]).encode()).hexdigest()
        positive = 1 if len(labels) == 2 else None
        majority = int(np.bincount(true, minlength=len(labels)).argmax())
        found = {
            **quality(true, answered, labels, positive, majority),
            **measures(column, seed),
            "report_key": key,
            **figures,
        }
        self.write(column, seed, task, {"status": "done"} | ({"method": method} if method else {}))
        (place / RESULTS).write_text(json.dumps(found), encoding="utf-8")
        (place / HISTORY).write_text(json.dumps(list(history)), encoding="utf-8")
        self.use("planted", key)
        return place

    def hole(
        self, column: str, status: str, error: str, *, seed: int = 0, task: str = "sst2"
    ) -> None:
        """Write a cell that came to nothing."""
        self.write(column, seed, task, {"status": status, "error": error})

    def write(self, column: str, seed: int, task: str, told: Mapping[str, Any]) -> None:
        """Write `cell.json`."""
        stated = self.config.column(column)
        content = {
            "task": task,
            "column": column,
            "seed": seed,
            "method": stated.method,
            "settings": stated.model_dump(mode="json"),
            "digest": "0",
            **told,
        }
        place = self.folder / Cell(task, column, seed).name
        place.mkdir(exist_ok=True)
        (place / CELL).write_text(json.dumps(content), encoding="utf-8")

    def use(self, matrix: str, key: str) -> None:
        """Say that a matrix reported on a split."""
        if (matrix, key) not in self._used:
            self._used.add((matrix, key))
            with (self.folder / USES).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"report_key": key, "matrix": matrix, "at": "now"}) + "\n")


def measures(column: str, seed: int) -> dict[str, Any]:
    """Figures beside quality, a little different from seed to seed."""
    p50 = 4.0 + len(column) + 0.1 * seed
    return {
        "latency_ms": {
            "p50": p50,
            "p95": 1.5 * p50,
            "mean": 1.1 * p50,
            "p95_ci": [1.3 * p50, 2.0 * p50],
            "n": 50,
        },
        "throughput_per_s": {"texts": 320, "batch_size": 32, "per_s": 4000 / p50},
        "fit_s": 3.0 + len(column) + seed,
        "fit_cpu_s": 3.0,
        "peak_mb": 500.0 + 10 * len(column),
        "peak_gpu_mb": None,
        "n_parameters": 1_000_000 * len(column),
        "n_trained": 1000,
        "usd": None,
        "device": "cpu",
        "notes": [],
        "n_train": 80,
        "n_select": 20,
        "n_leaks": 0,
        "report_key": "",
        "train_key": f"train {seed}",
        "versions": {"python": "3.11"},
    }


def exactly(n_right: int, n: int) -> np.ndarray:
    """So many right ones, spread evenly over the rows."""
    at = np.arange(n)
    return (at * n_right) // n != ((at + 1) * n_right) // n
