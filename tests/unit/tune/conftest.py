"""A sweep over the small corpus, in this process and without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from red_ray.data.inputs import Inputs
from red_ray.data.prepare import HiddenLabels, LabelledRows
from tests.unit.training.fakes import Corpus, FakeEncoder
from tune.folder import Place
from tune.rows import texts_to_encode
from tune.space import SweepConfig, known_settings
from tune.trial import Shared

BASE: dict[str, object] = {
    "data": {"train": Path("train.csv")},
    "config": {
        "partition": {"subset_size": 4, "umap_dim": None},
        "router": {"folds": 3},
        "judge": {"gold_share": 0.0},
        "loop": {"samples_per_iteration": 12, "max_iterations": 3, "uncertainty_threshold": 0.0},
    },
    "space": {"samples_per_class": [3, 5], "partition.strategy": ["similar", "random"]},
    "goals": [{"escalate_at_most": 0.3}],
}

MakeSweep = Callable[..., SweepConfig]


@pytest.fixture
def sweep() -> MakeSweep:
    """A small sweep; what is given replaces its keys, and `config` adds to it."""

    def make(**keys: object) -> SweepConfig:
        given = BASE | keys
        if "config" in keys:
            given["config"] = BASE["config"] | keys["config"]
        return SweepConfig.model_validate(given)

    return make


@pytest.fixture
def inputs(corpus: Corpus) -> Inputs:
    return Inputs(
        LabelledRows(corpus.texts, corpus.labels),
        corpus.pool,
        HiddenLabels.of_texts(corpus.hidden.items()),
    )


@pytest.fixture
def shared(tmp_path: Path, inputs: Inputs) -> Callable[[SweepConfig], Shared]:
    """What the processes of a sweep share, every text encoded."""

    def make(one: SweepConfig) -> Shared:
        texts = texts_to_encode(known_settings(one), inputs)
        vectors = FakeEncoder().encode(texts)
        vectors.flags.writeable = False  # as the object store hands arrays out
        return Shared(one, inputs, texts, vectors, None, Place(tmp_path))

    return make
