"""`crossfit.safetensors` of a run: held-out scores of its rows, beside the bundle.

With SetFit experts also `encoders/HASH.safetensors`, what was fine-tuned without each fold, which
stays as it is when labels change. They are not in the bundle, so that they have no say in its id.
The scores say which model they are of, and those of another model count as none.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from red_ray.encoding import TunedWeights
from red_ray.model import RedModel
from red_ray.run_folder import CROSSFIT, ENCODERS
from red_ray.storage import writing
from red_ray.training.crossfit import Crossfit, Refused

NAME = CROSSFIT

_HASH = re.compile(r"[0-9a-f]{64}")

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
        if crossfit is None or not crossfit.is_small:
            path.unlink(missing_ok=True)
            return False
        new = path.with_name(f".{NAME}.new")
        new.write_bytes(save(_arrays(crossfit), _about(model, crossfit)))
        new.replace(path)
    return True


def save_encoders(folder: Path, encoders: Sequence[TunedWeights]) -> None:
    """Write what was fine-tuned without each fold of a run, in place of what was there.

    Raises:
        OutputError: it cannot be written.
        StorageError: the disk is full.
    """
    place = folder / ENCODERS
    with writing(place):
        shutil.rmtree(place, ignore_errors=True)
        if encoders:
            place.mkdir()
        for weights in encoders:
            (place / f"{weights.sha256}.safetensors").write_bytes(weights.tensors)


def load_crossfit(folder: Path, model: RedModel) -> Crossfit | None:
    """Read it; None where there is none, it is of another model, or it cannot be read."""
    path = folder / NAME
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            if about.get("model") != _digest(model):
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = _names(about.get("encoders", "[]"))
            files = (folder / ENCODERS / f"{name}.safetensors" for name in names)
            encoders = tuple(TunedWeights.read(file.read_bytes()) for file in files)
            if [one.sha256 for one in encoders] != names:
                return None
            return replace(_crossfit(arrays, about, model), encoders=encoders)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError, AttributeError):
        return None  # it can be worked out again


def _names(told: str) -> list[str]:
    """Hashes, of which paths are made: anything else may lead out of the folder."""
    names = json.loads(told)
    if not isinstance(names, list) or not all(map(_HASH.fullmatch, names)):
        raise ValueError("no list of hashes")
    return names


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
        "encoders": json.dumps([one.sha256 for one in crossfit.encoders]),
        "gone": json.dumps(dict(crossfit.gone)),
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
        gone={key: int(fold) for key, fold in json.loads(about.get("gone", "{}")).items()},
    )


def _whole(scores: NDArray[np.generic], held: NDArray[np.bool_]) -> Floats:
    """The scores at the rows they are of; zero for a row that was never held back."""
    whole = np.zeros((len(held), scores.shape[1]), dtype=np.float32)
    whole[held] = scores
    return whole
