"""Fine-tuned weights on disk: what was fine-tuned once is never fine-tuned again.

`<root>/tuned/<key>.safetensors` beside the embeddings, where the root may be an address (see
`red_ray.address`). A run that was killed goes on after the fine-tunings that were done.
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from red_ray.address import Remote, is_address
from red_ray.encoding.resolve import resolve_spec
from red_ray.encoding.store import default_root
from red_ray.encoding.tuning import TuningRows, tune, tuning_key
from red_ray.encoding.weights import TunedWeights
from red_ray.storage import writing

if TYPE_CHECKING:
    from red_ray.config import EncoderConfig, SetFitConfig

logger = logging.getLogger(__name__)

FOLDER = "tuned"


def tune_once(
    config: EncoderConfig, rows: TuningRows, settings: SetFitConfig, *, seed: int
) -> TunedWeights:
    """As `tune`, from the store where it holds the result, else into it.

    Raises:
        EncoderError: see `tune`.
        OutputError: the store cannot be written.
        StorageError: its disk is full, or the address cannot be reached.
    """
    name = f"{tuning_key(resolve_spec(config), rows, settings, seed)}.safetensors"
    root = default_root() if config.store is None else config.store
    stored = _read(root, name)
    if stored is not None:
        try:
            return TunedWeights.read(stored)
        except (SafetensorError, ValueError) as error:
            logger.warning("fine-tuned weights ignored: file=%s reason=%s", name, error)
    weights = tune(config, rows, settings, seed=seed)
    _write(root, name, weights.tensors)
    return weights


def _read(root: Path | str, name: str) -> bytes | None:
    if isinstance(root, str) and is_address(root):
        return Remote(root).below(FOLDER).read(name)
    try:
        return (Path(root) / FOLDER / name).read_bytes()
    except FileNotFoundError:
        return None


def _write(root: Path | str, name: str, content: bytes) -> None:
    if isinstance(root, str) and is_address(root):
        Remote(root).below(FOLDER).write(name, content)
        return
    folder = Path(root) / FOLDER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            temporary.write_bytes(content)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
