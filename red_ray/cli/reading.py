"""The rows of `red-ray train`: labelled ones, a cold start, a warm start."""

from __future__ import annotations

from pathlib import Path

from red_ray.bundle import MANIFEST
from red_ray.config import RunConfig
from red_ray.data.inputs import Inputs, read_cold, read_inputs
from red_ray.data.prepare import LabelledRows
from red_ray.data.warm import KnownExamples, warm_started
from red_ray.errors import ConfigError
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place


def read_rows(
    config: RunConfig,
    train: Path | None,
    pool: Path | None,
    descriptions: Path | None,
    warm_start: str | None,
) -> Inputs:
    """Read the rows to train on.

    Args:
        config: resolved.
        train: labelled rows; None begins with what the judge finds.
        pool: unlabelled rows.
        descriptions: of labels; without `train` these are the labels.
        warm_start: run or bundle whose examples join.

    Raises:
        ConfigError: there is nothing to begin with.
        DataError: a file cannot be used.
    """
    if train is None and descriptions is None and warm_start is None:
        raise ConfigError(
            "nothing to train on: give --train, or labels in --descriptions with --pool and "
            "--judge, or --warm-start"
        )
    if train is not None:
        inputs = read_inputs(config, train, pool, descriptions)
    elif config.samples_per_class is not None:
        raise ConfigError("--samples-per-class draws from the rows of --train, and there are none")
    else:
        inputs = read_cold(config, descriptions, pool)
    if warm_start is not None:
        inputs = warm_started(inputs, read_examples(warm_start))
    _check_begins(config, inputs)
    return inputs


def read_examples(place: str) -> KnownExamples:
    """The examples of a run or a bundle.

    Raises:
        DataError: it is neither.
        BundleError: it is damaged.
    """
    from red_ray.bundle import load_bundle

    with at_place(place) as found:
        whole = isinstance(found, Path) and (found / MANIFEST).exists()
        model = load_bundle(Path(place) if whole else RunFolder.open(found).bundle)
    names = [model.labels[label] for label in model.example_labels]
    rows = LabelledRows(model.example_texts, tuple(names))
    # What stands for a name is no text.
    texts = [at for at, name in enumerate(names) if name not in model.unseen]
    return KnownExamples(
        name=place,
        labels=model.labels,
        descriptions={
            name: text for name, text in zip(model.labels, model.descriptions, strict=True) if text
        },
        by_user=rows.take(at for at in texts if at < model.n_seed),
        by_judge=rows.take(at for at in texts if at >= model.n_seed),
    )


def _check_begins(config: RunConfig, inputs: Inputs) -> None:
    unseen, spec = inputs.unseen, config.judge.spec
    if not unseen:
        return
    what = f"{len(unseen)} of {len(inputs.label_set)} labels have no labelled row"
    if spec is None or not inputs.pool:
        raise ConfigError(f"{what}; give --judge and --pool to find their first examples")
    if spec == "neighbours":
        raise ConfigError(f"{what}, and judge 'neighbours' votes with such rows; ask another judge")
