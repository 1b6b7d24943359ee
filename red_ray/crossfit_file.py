"""`crossfit.safetensors` of a run: held-out scores of its rows, beside the bundle.

Not in it, so that it has no say in the bundle's id. It says which model it is of, and one of
another model counts as none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from red_ray.model import RedModel
from red_ray.run_folder import CROSSFIT
from red_ray.storage import writing
from red_ray.training.crossfit import Crossfit, Refused

NAME = CROSSFIT

MAX_CELLS = 2**24
"""Scores that are kept at most: 32 MB. Of more, a change of labels cross-fits every expert."""

MAX_REFUSED = 2**14
"""Refused texts that are kept at most: 25 MB of embeddings with 384 dimensions."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def save_crossfit(folder: Path, model: RedModel, crossfit: Crossfit | None) -> bool:
    """Write it; removes the one that is there where there is none, or too much of it.

    Half precision, 11 bits, is finer than a log-probability is sure.

    Args:
        folder: the run's.
        model: whose rows, labels and experts it is about.
        crossfit: what to keep.

    Returns:
        Whether it was kept.

    Raises:
        OutputError: it cannot be written.
        StorageError: the disk is full.
    """
    path = folder / NAME
    with writing(path):
        if crossfit is None or not _is_small(crossfit):
            path.unlink(missing_ok=True)
            return False
        new = path.with_name(f".{NAME}.new")
        new.write_bytes(save(_arrays(crossfit), _about(model, crossfit)))
        new.replace(path)
    return True


def load_crossfit(folder: Path, model: RedModel) -> Crossfit | None:
    """Read it; None where there is none, it is of another model, or it cannot be read."""
    path = folder / NAME
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            if about.get("model") != _digest(model):
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _crossfit(arrays, about, model)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # it can be worked out again


def _is_small(crossfit: Crossfit) -> bool:
    n_columns = sum(scores.shape[1] for scores in crossfit.experts)
    n_columns += 0 if crossfit.gate is None else crossfit.gate.shape[1]
    n_cells = int((crossfit.folds >= 0).sum()) * n_columns
    return n_cells <= MAX_CELLS and len(crossfit.refused.texts) <= MAX_REFUSED


def _arrays(crossfit: Crossfit) -> dict[str, NDArray[np.generic]]:
    held, refused = crossfit.folds >= 0, crossfit.refused
    arrays: dict[str, NDArray[np.generic]] = {
        "folds": crossfit.folds.astype(np.int16),
        "experts": _halved(np.concatenate([scores[held] for scores in crossfit.experts], axis=1)),
        "refused": np.ascontiguousarray(refused.vectors),
    }
    if crossfit.gate is not None:
        arrays["gate"] = _halved(crossfit.gate[held])
    return arrays


def _halved(scores: Floats) -> NDArray[np.float16]:
    return np.ascontiguousarray(scores, dtype=np.float16)


def _about(model: RedModel, crossfit: Crossfit) -> dict[str, str]:
    refused = crossfit.refused
    return {
        "model": _digest(model),
        "refused_texts": json.dumps(refused.texts),
        "refused_of": json.dumps(refused.of_expert),
    }


def _digest(model: RedModel) -> str:
    """Names the rows, labels and experts of a model; its thresholds have no say."""
    rows = [model.example_texts, model.example_labels.tolist(), model.n_seed]
    content = json.dumps([model.labels, model.subsets, rows])
    return hashlib.sha256(content.encode()).hexdigest()


def _crossfit(
    arrays: dict[str, NDArray[np.generic]], about: dict[str, str], model: RedModel
) -> Crossfit:
    folds = np.asarray(arrays["folds"], dtype=np.int64)
    held, n_rows = folds >= 0, len(model.example_labels)
    if len(folds) != n_rows:
        raise ValueError("scores of other rows")
    ends = np.cumsum([len(subset) + 1 for subset in model.subsets])[:-1]
    everything = _whole(arrays["experts"], held)
    refused = Refused(
        texts=tuple(json.loads(about["refused_texts"])),
        vectors=np.asarray(arrays["refused"], dtype=np.float32),
        of_expert=tuple(tuple(theirs) for theirs in json.loads(about["refused_of"])),
    )
    return Crossfit(
        folds=folds,
        gate=_whole(arrays["gate"], held) if "gate" in arrays else None,
        experts=tuple(np.split(everything, ends, axis=1)),
        refused=refused,
    )


def _whole(scores: NDArray[np.generic], held: NDArray[np.bool_]) -> Floats:
    """The scores at the rows they are of; zero for a row that was never held back."""
    whole = np.zeros((len(held), scores.shape[1]), dtype=np.float32)
    whole[held] = scores
    return whole
