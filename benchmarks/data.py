"""The data sets of the benchmarks, through the readers that users have."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import numpy as np

from red_ray.config import RunConfig, load_config
from red_ray.data.inputs import Inputs, TestRows, read_inputs, read_test
from red_ray.encoding import CachedEncoder, open_encoder
from red_ray.training import LocalFleet, Trained, Trainer, TrainingJob

SEEDS = (0, 1, 2)


def data_folder() -> Path:
    """Where the data sets are; ends the benchmark with the reason where they are not."""
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("RED_RAY_DATA", default))
    if not (folder / "banking77" / "train.csv").exists():
        sys.exit(f"no data at {folder}: set RED_RAY_DATA to the folder that holds banking77/")
    return folder


def load(
    name: str, per_label: int, seed: int, overrides: dict[str, object] | None = None
) -> tuple[RunConfig, Inputs, TestRows]:
    """Rows of a data set: so many per label drawn from train, the rest the pool, official test."""
    folder = data_folder() / name
    settings: dict[str, object] = {"seed": seed, "samples_per_class": per_label}
    config = load_config(None, settings | (overrides or {}))
    inputs = read_inputs(config, folder / "train.csv", None, None)
    strange = folder / "oos_test.csv"
    test = read_test(
        config,
        inputs.seen_keys,
        frozenset(inputs.train.labels),
        test=folder / "test.csv",
        out_of_scope=strange if strange.exists() else None,
    )
    return config, inputs, test


def job_of(config: RunConfig, inputs: Inputs, *, pool: bool = False) -> TrainingJob:
    """The training job of these rows, with or without their pool."""
    texts = inputs.pool if pool else ()
    return TrainingJob(inputs.train.texts, inputs.train.labels, texts, {}, config)


def encoder_of(config: RunConfig) -> CachedEncoder:
    """The configured encoder with its store: each text is encoded once ever."""
    return open_encoder(config.encoder)


def train_alone(
    job: TrainingJob, encoder: CachedEncoder, fleet_kind: type[LocalFleet] = LocalFleet
) -> Trained:
    """Train in this process, without a judge."""

    async def run_to_end() -> Trained:
        fleet = fleet_kind(encoder)
        trainer = Trainer(job, fleet)
        async for _ in trainer.run():
            pass
        fleet.close()
        return trainer.result()

    return asyncio.run(run_to_end())


def true_labels(labels: tuple[str, ...], rows: TestRows) -> np.ndarray:
    """Label indices of the test rows."""
    index = {label: position for position, label in enumerate(labels)}
    return np.array([index[label] for label in rows.rows.labels])
