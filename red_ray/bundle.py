"""A trained model as a folder, and back. No pickle; a changed file is refused.

manifest.json            configuration, labels, partition, router, thresholds with the promise
                         behind them, files with their SHA-256, and a seal: its own, taken with
                         zeros in the seal's place
examples.safetensors     embeddings and labels of the rows that the model ended with
examples.json            their texts
calibration.safetensors  what models that had not seen the user's rows said of them
encoder.safetensors      what fine-tuning changed of the encoder, where it was fine-tuned
lexical.safetensors      document frequencies, where lexical evidence is used
experts/NAME.safetensors or NAME.skops, one per expert, and gate
provenance.json          dates, timings, host, versions: the only file outside the bundle id
"""

from __future__ import annotations

import hashlib
import io as bytes_io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from red_ray.config import RunConfig, parse_config
from red_ray.core.lexical import LexicalSpace
from red_ray.core.risk import RiskModel
from red_ray.core.router import Router
from red_ray.core.thresholds import CalibrationRows, CurvePoint, Promise, Thresholds
from red_ray.encoding import EncoderSpec, TunedWeights
from red_ray.errors import BundleError, ConfigError
from red_ray.experts import Expert, LogisticRegressionExpert, RandomForestExpert, SetFitExpert
from red_ray.model import RedModel, expert_name
from red_ray.storage import writing

FORMAT = 2
MANIFEST, PROVENANCE = "manifest.json", "provenance.json"
TUNED = "encoder.safetensors"
OF_A_PLACE = {
    "encoder": ("store",),
    "expert": ("per_actor",),
    "judge": ("concurrency", "timeout_s", "total_time_s", "max_attempts", "key_variable"),
}
"""Settings that say where and how fast a run went, not what it made: no bundle has them."""
UNSEALED = "0" * 64
"""Stands in a manifest for the hash of the manifest itself while that is taken."""

_TRIES = 3

SKOPS_TRUSTED = ["sklearn.tree._tree.Tree"]
"""Types beyond skops' own safe list that a forest may hold. A tree is arrays; what they hold is
checked by the file's hash, not by scikit-learn."""
SCHEMA = "schema.json"
"""What an archive of skops says of its members."""


def save_bundle(model: RedModel, folder: Path, provenance: Mapping[str, Any]) -> str:
    """Write a bundle and return its id; a bundle that stood there is replaced at the end.

    Args:
        model: what to keep.
        folder: where; its parent must exist.
        provenance: what does not enter the id (dates, timings, host, versions, scorecard).

    Raises:
        OutputError: the folder cannot be written.
        StorageError: the disk is full.
    """
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    with writing(folder):
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        (new / "experts").mkdir(parents=True)
        _write_parts(model, new)
        files = _hashes(new)
        bundle_id = _bundle_id(files | {MANIFEST: _write_manifest(model, new, files)})
        write_provenance(new, provenance)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return bundle_id


def write_provenance(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write `provenance.json` alone: it is no part of the id."""
    with writing(folder):
        text = json.dumps(provenance, indent=2, sort_keys=True)
        (folder / PROVENANCE).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read `provenance.json`; empty where there is none."""
    try:
        return dict(json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def load_bundle(folder: Path) -> RedModel:
    """Read a bundle, after every file's hash was checked.

    No lock is taken: where another bundle takes its place meanwhile, that one is read.

    Raises:
        BundleError: it is no bundle, of another format, damaged, or holds a foreign file.
    """
    for _ in range(_TRIES):
        manifest = _read_manifest(folder)
        try:
            model = _checked_model(folder, manifest)
        except (BundleError, OSError):
            if _is_still(folder, manifest):
                raise
        else:
            if _is_still(folder, manifest):
                return model
    raise BundleError(f"the bundle {str(folder)!r} is replaced again and again; wait for that")


def _checked_model(folder: Path, manifest: Mapping[str, Any]) -> RedModel:
    _check_files(folder, manifest["files"])
    try:
        return _model(folder, manifest)
    except (KeyError, TypeError, ValueError, SafetensorError, ConfigError) as error:
        raise BundleError(
            f"the bundle {str(folder)!r} does not fit this version: {error}"
        ) from error


def _is_still(folder: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        return bool(_read_manifest(folder)["seal"] == manifest["seal"])
    except BundleError:
        return False


def bundle_id_of(folder: Path) -> str:
    """The id that a bundle's manifest gives it; no other file is read.

    Raises:
        BundleError: it is no bundle, of another format, or its manifest is damaged.
    """
    manifest = _read_manifest(folder)
    return _bundle_id(dict(manifest["files"]) | {MANIFEST: _hash(folder / MANIFEST)})


def checked_id(folder: Path) -> str:
    """The id of a bundle, after every file's hash was checked.

    Raises:
        BundleError: it is no bundle, of another format, or damaged.
    """
    _check_files(folder, _read_manifest(folder)["files"])
    return bundle_id_of(folder)


def load_experts(folder: Path, bundle_id: str, first: int, step: int) -> tuple[Expert, ...]:
    """Read every `step`-th expert of a bundle, after their files' hashes were checked.

    Raises:
        BundleError: it is not the bundle of that id, or damaged.
    """
    manifest = _read_manifest(folder)
    files = dict(manifest["files"])
    if _bundle_id(files | {MANIFEST: _hash(folder / MANIFEST)}) != bundle_id:
        raise BundleError(f"{str(folder)!r} holds another bundle than {bundle_id[:16]}")
    experts = []
    for position in range(first, len(manifest["experts"]), step):
        name = expert_name(position)
        stem = f"experts/{name}."
        _check_hashes(folder, {path: files[path] for path in files if path.startswith(stem)})
        kind, n_labels = manifest["experts"][position], len(manifest["subsets"][position])
        experts.append(_read_expert(kind, n_labels, folder / "experts" / name))
    if not _is_still(folder, manifest):
        raise BundleError(f"{str(folder)!r} was replaced while it was read")
    return tuple(experts)


def _write_parts(model: RedModel, folder: Path) -> None:
    examples = {"vectors": model.example_vectors, "labels": model.example_labels}
    _save_arrays(examples, folder / "examples.safetensors")
    (folder / "examples.json").write_text(
        json.dumps(list(model.example_texts), ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
    )
    rows = model.calibration
    seen = {name: getattr(rows, name) for name in ("label_risk", "right", "offered", "none")}
    _save_arrays(seen, folder / "calibration.safetensors")
    if model.space is not None:
        _save_arrays({"idf": model.space.idf}, folder / "lexical.safetensors")
    for position, expert in enumerate(model.experts):
        _write_expert(expert, folder / "experts" / expert_name(position))
    if model.gate is not None:
        _write_expert(model.gate, folder / "experts" / "gate")
    if model.tuned is not None:
        (folder / TUNED).write_bytes(model.tuned.tensors)


def _save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    # Not `save_file`: its error on a full disk is no OSError.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _write_expert(expert: Expert, stem: Path) -> None:
    if isinstance(expert, LogisticRegressionExpert):
        _save_arrays({"weights": expert.weights, "bias": expert.bias}, _with(stem, "safetensors"))
        return
    if isinstance(expert, RandomForestExpert):
        from skops import io

        # Stored, not deflated: skops writes times into a zip, so its bytes are made our own.
        _with(stem, "skops").write_bytes(_timeless(io.dumps(expert.model)))
        return
    raise TypeError(f"no bundle format for an expert of type {type(expert).__name__}")


def _timeless(archive: bytes) -> bytes:
    """The same archive without times and addresses, so that equal models have equal bytes."""
    out = bytes_io.BytesIO()
    with zipfile.ZipFile(bytes_io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w") as target:
        schema = json.loads(source.read(SCHEMA))
        members: dict[str, str] = {}
        _number(schema, {}, members)
        contents = {new: _unpadded(source.read(old)) for old, new in members.items()}
        contents[SCHEMA] = json.dumps(schema, sort_keys=True).encode()
        for name, content in sorted(contents.items()):
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def _number(node: Any, ids: dict[int, int], members: dict[str, str]) -> None:
    """Replace the memory addresses that skops uses as ids and file names by running numbers."""
    if isinstance(node, list):
        for inner in node:
            _number(inner, ids, members)
    if not isinstance(node, dict):
        return
    if "__id__" in node:
        # Whether two equal numbers or texts are one object is an accident: each is one by itself.
        address = -1 - len(ids) if node.get("is_json") else node["__id__"]
        node["__id__"] = ids.setdefault(address, len(ids))
    if isinstance(node.get("file"), str):
        name = f"{len(members)}{Path(node['file']).suffix}"
        node["file"] = members.setdefault(node["file"], name)
    for name in sorted(node):  # attributes stand in the order in which they were set
        _number(node[name], ids, members)


def _unpadded(member: bytes) -> bytes:
    """An array with zeros between its fields, where scikit-learn leaves what was in memory."""
    array = np.load(bytes_io.BytesIO(member), allow_pickle=False)
    if array.dtype.names is None:
        return member
    clean = np.zeros(array.shape, array.dtype)  # `zeros_like` leaves the gaps as they are
    for name in array.dtype.names:
        clean[name] = array[name]
    # Not `np.save`: it copies through a buffer of its own, whose gaps are not zero either.
    return member[: -clean.nbytes] + bytes(clean.view(np.uint8).tobytes())


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _write_manifest(model: RedModel, folder: Path, files: Mapping[str, str]) -> str:
    router = model.router
    manifest = {
        "format": FORMAT,
        "config": _identity_config(model),
        "labels": list(model.labels),
        "descriptions": list(model.descriptions),
        "subsets": [list(subset) for subset in model.subsets],
        "experts": [expert.kind for expert in model.experts],
        "noise_counts": list(model.noise_counts),
        "n_seed": model.n_seed,
        "encoder": None if model.encoder_spec is None else model.encoder_spec.to_dict(),
        "gate": model.gate is not None,
        "lexical": model.space is not None,
        "router": {
            "columns": router.columns.tolist(),
            "weights": router.weights.tolist(),
            "novelty_mean": router.novelty_mean.tolist(),
            "novelty_scale": router.novelty_scale.tolist(),
            "none_slope": router.none_slope,
            "none_bias": router.none_bias,
        },
        "risk": None if model.risk is None else _risk_to_json(model.risk),
        "promise": None if model.promise is None else _promise_to_json(model.promise),
        "files": dict(files),
        "seal": UNSEALED,
    }
    # Keys of their own: bundles that need none of them keep their ids.
    manifest |= {} if model.labelled_by == "user" else {"labelled_by": model.labelled_by}
    manifest |= {"unseen": list(model.unseen)} if model.unseen else {}
    if model.written_counts:
        manifest["written_counts"] = list(model.written_counts)
    path = folder / MANIFEST
    text = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    path.write_text(_sealed(text, UNSEALED, _seal(text, UNSEALED)), encoding="utf-8")
    return _hash(path)


def _seal(text: str, seal: str) -> str:
    """The hash of a manifest's text as it was before the seal was put in."""
    return hashlib.sha256(_sealed(text, seal, UNSEALED).encode()).hexdigest()


def _sealed(text: str, old: str, new: str) -> str:
    # No label or description can look like this: quotes are escaped inside a JSON string.
    return text.replace(f'"seal": "{old}"', f'"seal": "{new}"')


def _identity_config(model: RedModel) -> dict[str, Any]:
    """The configuration without `OF_A_PLACE`."""
    data = model.config.model_dump(mode="json")
    for section, keys in OF_A_PLACE.items():
        for key in keys:
            data[section].pop(key)
    if model.tuned is None:
        data.pop("setfit")
    if not model.written_counts:  # nothing was learned by them
        data["judge"].pop("paraphrases")
        data["judge"].pop("paraphrase_weight")
    data["judge"]["ledger"] = None  # kept as a key: without it every bundle had another id
    return data


def _hashes(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _hash(path) for path in paths}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bundle_id(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted (path, SHA-256) pairs of all files but provenance.json."""
    pairs = "".join(f"{path}\0{digest}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(pairs.encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")  # as it stands: no line ending is mended
        manifest = json.loads(text)
        found, seal = manifest["format"], manifest["seal"]
        if not isinstance(manifest["files"], dict):
            raise TypeError("'files' is no table")
    except FileNotFoundError as error:
        raise BundleError(f"{str(folder)!r} is no bundle: it has no {MANIFEST}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"cannot read {str(path)!r}: {error}") from error
    if found != FORMAT:
        raise BundleError(
            f"{str(folder)!r} has bundle format {found!r}; this version reads {FORMAT}"
        )
    if _seal(text, seal) != seal:
        raise BundleError(_damaged(folder, f"{MANIFEST!r} was changed since it was written"))
    return dict(manifest)


def _check_files(folder: Path, expected: Mapping[str, str]) -> None:
    found = set(_names(folder)) - {MANIFEST, PROVENANCE}
    for name in sorted(found ^ set(expected)):
        fault = "is missing" if name in expected else "does not belong there"
        raise BundleError(_damaged(folder, f"{name!r} {fault}"))
    _check_hashes(folder, expected)


def _check_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    for name, digest in sorted(expected.items()):
        if _hash(folder / name) != digest:
            raise BundleError(_damaged(folder, f"{name!r} was changed since it was written"))


def _damaged(folder: Path, fault: str) -> str:
    return f"the bundle {str(folder)!r} is damaged: {fault}; restore it or train again"


def _names(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _model(folder: Path, manifest: Mapping[str, Any]) -> RedModel:
    labels = tuple(manifest["labels"])
    subsets = tuple(tuple(subset) for subset in manifest["subsets"])
    examples = load_file(folder / "examples.safetensors")
    texts = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    kinds = zip(manifest["experts"], subsets, strict=True)
    experts = [
        _read_expert(kind, len(subset), folder / "experts" / expert_name(position))
        for position, (kind, subset) in enumerate(kinds)
    ]
    gate_stem = folder / "experts" / "gate"
    files = dict(manifest["files"]) | {MANIFEST: _hash(folder / MANIFEST)}
    gate_kind = "setfit" if TUNED in files else "logistic_regression"
    gate = _read_expert(gate_kind, len(labels), gate_stem) if manifest["gate"] else None
    space = _read_space(folder) if manifest["lexical"] else None
    return RedModel(
        config=_read_config(manifest["config"]),
        labels=labels,
        descriptions=tuple(manifest["descriptions"]),
        subsets=subsets,
        experts=tuple(experts),
        noise_counts=tuple(manifest["noise_counts"]),
        gate=gate,
        router=_read_router(manifest["router"]),
        risk=_read_risk(manifest["risk"]),
        calibration=_read_calibration(folder),
        example_texts=tuple(texts),
        example_vectors=examples["vectors"],
        example_labels=examples["labels"],
        n_seed=int(manifest["n_seed"]),
        space=space,
        encoder_spec=_read_encoder_spec(manifest["encoder"]),
        tuned=_read_tuned(folder / TUNED) if TUNED in files else None,
        bundle_id=_bundle_id(files),
        promise=_read_promise(manifest["promise"]),
        labelled_by=manifest.get("labelled_by", "user"),  # before a judge could: the user
        unseen=tuple(manifest.get("unseen", ())),
        written_counts=tuple(manifest.get("written_counts", ())),
    )


def _read_config(data: dict[str, Any]) -> RunConfig:
    """The configuration; whoever made the bundle has no say in where this machine reads and writes.

    Raises:
        BundleError: it says so all the same.
        ConfigError: it is none.
    """
    found = [
        f"{name}.{key}" for name, keys in OF_A_PLACE.items() for key in keys if key in data[name]
    ]
    if found:
        raise BundleError(
            f"the bundle sets {found[0]!r}, which is for the machine that uses it to set: it was "
            "not written by red-ray; do not use it"
        )
    # Bundles of before 29 November 2026 may name one, and are good without it.
    return parse_config(dict(data) | {"judge": dict(data["judge"]) | {"ledger": None}})


def _read_space(folder: Path) -> LexicalSpace:
    return LexicalSpace(idf=load_file(folder / "lexical.safetensors")["idf"])


def _read_encoder_spec(data: Mapping[str, Any] | None) -> EncoderSpec | None:
    return None if data is None else EncoderSpec.from_dict(data)


def _read_tuned(path: Path) -> TunedWeights:
    return TunedWeights.read(path.read_bytes())


def _read_router(data: Mapping[str, Any]) -> Router:
    return Router(
        columns=np.array(data["columns"], dtype=np.int64),
        weights=np.array(data["weights"], dtype=np.float64),
        novelty_mean=np.array(data["novelty_mean"], dtype=np.float64),
        novelty_scale=np.array(data["novelty_scale"], dtype=np.float64),
        none_slope=float(data["none_slope"]),
        none_bias=float(data["none_bias"]),
    )


def _risk_to_json(risk: RiskModel) -> dict[str, Any]:
    return {
        "mean": risk.mean.tolist(),
        "scale": risk.scale.tolist(),
        "weights": risk.weights.tolist(),
        "bias": risk.bias,
    }


def _read_risk(data: Mapping[str, Any] | None) -> RiskModel | None:
    if data is None:
        return None
    return RiskModel(
        mean=np.array(data["mean"], dtype=np.float64),
        scale=np.array(data["scale"], dtype=np.float64),
        weights=np.array(data["weights"], dtype=np.float64),
        bias=float(data["bias"]),
    )


def _read_calibration(folder: Path) -> CalibrationRows:
    arrays = load_file(folder / "calibration.safetensors")
    return CalibrationRows(
        label_risk=arrays["label_risk"],
        right=arrays["right"],
        offered=arrays["offered"],
        none=arrays["none"],
        none_out_of_scope=np.zeros(0),
    )


def _promise_to_json(promise: Promise) -> dict[str, Any]:
    """Without what says nothing: a bundle of before there was that keeps its id."""
    unsaid = [name for name in ("stale", "uncovered") if not getattr(promise, name)]
    unsaid += ["labelled_by"] if promise.labelled_by == "user" else []
    return {name: value for name, value in asdict(promise).items() if name not in unsaid}


def _read_promise(data: Mapping[str, Any] | None) -> Promise | None:
    if data is None:
        return None
    points = (
        point | {name: tuple(band) for name, band in point.items() if name.endswith("_band")}
        for point in data["curve"]
    )
    curve = tuple(CurvePoint(**point) for point in points)
    told = dict(data) | {"uncovered": tuple(data.get("uncovered", ()))}
    return Promise(**{**told, "thresholds": Thresholds(**data["thresholds"]), "curve": curve})


def _read_expert(kind: str, n_labels: int, stem: Path) -> Expert:
    if kind in ("logistic_regression", "setfit"):
        arrays = load_file(_with(stem, "safetensors"))
        made = SetFitExpert if kind == "setfit" else LogisticRegressionExpert
        return made(n_labels, arrays["weights"], arrays["bias"])
    if kind == "random_forest":
        from skops import io

        path = _with(stem, "skops")
        unknown = io.get_untrusted_types(file=path)
        if set(unknown) - set(SKOPS_TRUSTED):
            raise BundleError(f"{str(path)!r} holds types that no bundle holds: {sorted(unknown)}")
        return RandomForestExpert(n_labels, model=io.load(path, trusted=SKOPS_TRUSTED))
    raise BundleError(f"unknown expert kind {kind!r} in the bundle")
