"""The rows of a sweep: read once, and what of them has to be encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from red_ray.data.inputs import (
    Inputs,
    KnownRows,
    TestRows,
    draw_samples,
    read_inputs,
    read_test,
    with_calibration,
)
from red_ray.training.job import readable
from tune.space import Setting, SweepConfig, base_config
from tune.trial import job_of


def read_rows(sweep: SweepConfig) -> tuple[Inputs, TestRows | None]:
    """All rows of a sweep, of which each setting draws its own, and the rows for the chosen one.

    Raises:
        DataError: a file cannot be used.
    """
    data = sweep.data
    config = base_config(sweep).model_copy(update={"samples_per_class": None})
    inputs = read_inputs(config, data.train, data.pool, data.descriptions)
    test = None
    if data.test is not None:
        labels = frozenset(inputs.train.labels)
        test = read_test(config, inputs.seen_keys, labels, test=data.test, out_of_scope=data.oos)
    if data.calibration is not None:
        inputs = with_calibration(config, inputs, test, data.calibration, data.calibration_oos)
    return inputs, test


def texts_to_encode(settings: Sequence[Setting], inputs: Inputs) -> tuple[str, ...]:
    """Every text that a setting may ask the encoder about, each once.

    Args:
        settings: all of them; empty where they are suggested one after the other.
        inputs: all rows.
    """
    names = sorted(set(inputs.train.labels))
    labels = [inputs.descriptions.get(name) or readable(name) for name in names]
    if not settings:
        return tuple(dict.fromkeys((*inputs.train.texts, *inputs.pool, *labels)))
    texts = dict.fromkeys(labels)
    draws = {
        (one.config.seed, one.config.samples_per_class, bool(one.config.judge.spec)): one.config
        for one in settings
    }
    for config in draws.values():
        job = job_of(draw_samples(config, inputs), config)
        texts |= dict.fromkeys((*job.texts, *job.pool))
    return tuple(texts)


def marks_of(sweep: SweepConfig, inputs: Inputs, test: TestRows | None) -> dict[str, str]:
    """Hashes of what a sweep's results depend on: where it is gone on with, they must not differ.

    Where the files lie may differ, and how many settings run at a time.
    """
    said = sweep.model_dump(mode="json", exclude={"data", "concurrent", "cpus_per_trial"})
    rows = inputs.train
    read = [rows.texts, rows.labels, inputs.pool, dict(inputs.descriptions)]
    hidden = [inputs.hidden.of(text) for text in inputs.pool]
    met = KnownRows(test.rows, test.out_of_scope) if test is not None else None
    return {
        "its file": _hash(said),
        "its rows": _hash([*read, hidden]),
        "its test rows": met.data_hash if met is not None else "",
        "its calibration rows": inputs.calibration.data_hash if inputs.calibration else "",
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
