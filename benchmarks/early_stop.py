"""When a fine-tuning should stop: rows that it does not learn, looked at all along its steps.

The rows that are held back first, as `setfit.early_stop` watches them; with the epochs of the
preset and with four times as many. MiniLM weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from benchmarks.accuracy import MODES
from benchmarks.cells import Benchmark, Cell, Result, main
from benchmarks.data import encoder_of, load
from red_ray.core.blas import use_one_blas_thread
from red_ray.data.splits import stratified_folds
from red_ray.encoding import TuningRows
from red_ray.encoding import tuning as fine_tuning
from red_ray.training.job import readable


class _Looks(logging.Handler):
    """Keeps what the looks at the watched rows found."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(vars(record)["log_likelihood"])


def run(cell: Cell) -> Result:
    """The log-likelihood of the first fold at each look; never stopped."""
    use_one_blas_thread()
    fine_tuning.PATIENCE = fine_tuning.LOOKS + 1  # type: ignore[misc]
    settings = MODES["accuracy"] | {"setfit": {"epochs": cell["epochs"], "max_steps": 100_000}}
    config, inputs, _ = load(cell["data"], cell["per_label"], cell["seed"], settings)
    names, labels = np.unique(inputs.train.labels, return_inverse=True)
    folds = stratified_folds(labels, config.router.folds, np.random.default_rng([config.seed, 2]))
    texts, vectors = np.array(inputs.train.texts), encoder_of(config).encode(inputs.train.texts)
    held, every = folds == 0, np.arange(len(names))
    means = np.stack([vectors[~held & (labels == label)].mean(axis=0) for label in every])
    rows = TuningRows(
        texts=(*texts[~held].tolist(), *map(readable, names)),
        labels=np.concatenate([labels[~held], every]),
        vectors=np.concatenate([vectors[~held], means]),
        watched=(tuple(texts[held].tolist()), labels[held]),
    )
    looks = _Looks()
    fine_tuning.logger.addHandler(looks)
    fine_tuning.logger.setLevel(logging.INFO)
    weights = fine_tuning.tune(config.encoder, rows, config.setfit, seed=config.seed)
    return {
        "looks": looks.found,
        "share": weights.share,
        "steps": fine_tuning.n_steps(len(rows.texts), config.setfit),
        "n_watched": int(held.sum()),
    }


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Held-out log-likelihood by the share of the steps."""
    heads = [f"{n / fine_tuning.LOOKS:.0%}" for n in range(1, fine_tuning.LOOKS + 1)]
    lines = [
        f"| log-likelihood of the watched rows | epochs | steps | {' | '.join(heads)} | best |",
        "|" + "---|" * (len(heads) + 4),
    ]
    for cell, result in done:
        looks = " | ".join(f"{look:.3f}" for look in result["looks"])
        name = f"{cell['data']} {cell['per_label']}"
        lines.append(
            f"| {name} | {cell['epochs']} | {result['steps']} | {looks} | {result['share']:.0%} |"
        )
    return "\n".join(lines)


CELLS = [
    {"data": data, "per_label": 10, "seed": 0, "epochs": epochs}
    for epochs in (10, 40)
    for data in ("banking77", "clinc150")
] + [{"data": "banking77", "per_label": 30, "seed": 0, "epochs": 10}]

if __name__ == "__main__":
    main(Benchmark("early_stop", CELLS, run, table, ("encoding", "core/text.py", "config.py")))
