"""Embeddings on disk, found by the text they belong to.

`<root>/<first 16 of the spec's key>/<name>.safetensors` are shards that are only ever added.
Each holds `keys`, (n, 32) uint8: SHA-256 of the exact text in UTF-8, without the prompt (the
spec holds it), and `vectors`, (n, dim) float32; no text. A shard's name is the hash of its keys,
so writers who store the same texts write the same file. It is written under another name and
renamed: a reader, in this process or another, sees all of it or nothing.

A root may be an address (see `red_ray.address`), so that machines without a shared disk share what
any of them encoded. Its shards are then copied, as they are found, into a folder of this machine's
own store and mapped from there; a new one goes to the address first. Since names say what is in
them, writers need not know of each other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from red_ray.address import Remote, is_address, shown
from red_ray.encoding.spec import EncoderSpec
from red_ray.errors import OutputError, RedRayError, StorageError

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

ROOT_VARIABLE = "RED_RAY_CACHE"
LOCAL_ROOT = "~/.cache/red_ray/embeddings"
_SUFFIX = ".safetensors"
_DIGEST_BYTES = hashlib.sha256().digest_size
# The place is right, the disk is not: full, quota used up, failing.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def default_root() -> Path | str:
    """Where all stores are: `RED_RAY_CACHE`, which may be an address, else the user's cache."""
    root = os.environ.get(ROOT_VARIABLE) or LOCAL_ROOT
    return root if is_address(root) else Path(root).expanduser()


def copies_of(address: str) -> Path:
    """Where this machine keeps what it copied from an address."""
    mark = hashlib.sha256(shown(address).encode()).hexdigest()[:16]
    return Path(LOCAL_ROOT).expanduser().parent / "copies" / mark


@dataclass(frozen=True, slots=True)
class _Shard:
    """A file of the store, memory-mapped.

    Attributes:
        path: the file.
        start: number of its first row, counted over all shards in the order they were opened.
        keys: digests of the texts, shape (n, 32).
        vectors: their embeddings, shape (n, dim).
        sha256: what the writer says the content's hash is.
    """

    path: Path
    start: int
    keys: npt.NDArray[np.uint8]
    vectors: FloatArray
    sha256: str


class EmbeddingStore:
    """All embeddings of one encoder; may be shared by threads and by processes.

    What another process adds is seen at the next `get` that misses something. A shard that is
    damaged or foreign is left where it is and ignored, with one warning; its texts count as not
    stored. Its content is checked when the first of its vectors is asked for.
    """

    def __init__(self, root: Path | str | None, spec: EncoderSpec, dim: int | None = None) -> None:
        """Open the store of `spec` below `root`; makes the folder.

        Args:
            root: the folder of all stores, or an address; None: `default_root()`.
            spec: whose embeddings.
            dim: length of a vector; None: learnt from what is stored, or from the first `put`.

        Raises:
            OutputError: the folder cannot be made or read, or the address is denied.
            StorageError: the disk is full or failed, or the address cannot be reached.
        """
        self.spec = spec
        place = default_root() if root is None else root
        self._remote: Remote | None = None
        if isinstance(place, str) and is_address(place):
            self._remote = Remote(place).below(spec.key[:16])
            place = copies_of(place)
        self.folder = Path(place) / spec.key[:16]
        self._dim = dim
        self._lock = threading.RLock()
        self._shards: list[_Shard] = []
        self._n_rows = 0
        self._checked: set[int] = set()  # starts of the shards whose content was checked
        self._row_of: dict[bytes, int] = {}
        self._seen: set[str] = set()
        _make_folder(self.folder)
        self._refresh()

    @property
    def dim(self) -> int | None:
        """Length of a vector; None while nothing is known about it."""
        return self._dim

    def __len__(self) -> int:
        return len(self._row_of)

    def get(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """Look up embeddings.

        Returns:
            `found`, shape (n_texts,), and the vectors, shape (n_texts, dim); rows that were not
            found are zero. While `dim` is not known nothing is found, and the shape is (n, 0).

        Raises:
            OutputError: the folder cannot be read, or the address is denied.
            StorageError: the address cannot be reached.
        """
        digests = [_digest(text) for text in texts]
        with self._lock:
            rows = self._rows(digests)
            if (rows < 0).any() and self._refresh():
                rows = self._rows(digests)
            return self._gather(rows)

    def put(self, texts: Sequence[str], vectors: FloatArray) -> None:
        """Store embeddings; texts that are stored already, or stand twice, are skipped.

        Args:
            texts: the exact texts.
            vectors: their embeddings, shape (n_texts, dim), finite.

        Raises:
            ValueError: the shape does not fit, or a value is not finite.
            OutputError: the folder or the address cannot be written.
            StorageError: the disk is full or failed, or the address cannot be reached.
        """
        self._check_vectors(texts, vectors)
        with self._lock:
            new: dict[bytes, int] = {}
            for i, text in enumerate(texts):
                digest = _digest(text)
                if digest not in self._row_of:
                    new.setdefault(digest, i)
            if new:
                keys = np.frombuffer(b"".join(new), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
                vectors = vectors[list(new.values())]
                self._add(_write(self.folder, self.spec, keys, vectors, self._remote))

    def _check_vectors(self, texts: Sequence[str], vectors: FloatArray) -> None:
        expected = (len(texts), self._dim or vectors.shape[-1])
        if vectors.shape != expected:
            raise ValueError(f"expected vectors of shape {expected!r}, got {vectors.shape!r}")
        if not np.isfinite(vectors).all():
            raise ValueError("the vectors hold values that are not finite; nothing was stored")

    def _rows(self, digests: Sequence[bytes]) -> npt.NDArray[np.int64]:
        known = self._row_of
        return np.fromiter((known.get(d, -1) for d in digests), np.int64, count=len(digests))

    def _gather(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        found = np.zeros(len(rows), dtype=bool)
        vectors = np.zeros((len(rows), self._dim or 0), dtype=np.float32)
        starts = np.array([shard.start for shard in self._shards], dtype=np.int64)
        owner = np.searchsorted(starts, rows, side="right") - 1  # -1 where not stored
        for shard, i in [(self._shards[i], i) for i in np.unique(owner[owner >= 0])]:
            here = owner == i
            if self._is_sound(shard):
                vectors[here] = shard.vectors[rows[here] - shard.start]
                found |= here
        return found, vectors

    def _is_sound(self, shard: _Shard) -> bool:
        if shard.start in self._checked:
            return True
        if _content_sha256(shard.keys, shard.vectors) == shard.sha256:
            self._checked.add(shard.start)
            return True
        _warn_ignored(shard.path, "its content is not what was written")
        self._shards.remove(shard)
        end = shard.start + len(shard.keys)
        self._row_of = {d: r for d, r in self._row_of.items() if not shard.start <= r < end}
        return False

    def _refresh(self) -> bool:
        """Open shards that appeared in the folder or at the address; True if there were any."""
        try:
            self._copy_new()
            names = {name for name in os.listdir(self.folder) if name.endswith(_SUFFIX)}
        except FileNotFoundError:  # somebody emptied the cache; the next `put` makes it again
            names = set()
        except OSError as error:
            raise _translated(error, self.folder) from error
        new = sorted(names - self._seen)
        for name in new:
            self._add(self.folder / name)
        return bool(new)

    def _copy_new(self) -> None:
        if self._remote is None:
            return
        there = {name for name in self._remote.list() if name.endswith(_SUFFIX)}
        here = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        self._remote.download(sorted(there - here - self._seen), self.folder)

    def _add(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            shard = _open_shard(path, self.spec, start=self._n_rows)
            if self._dim not in (None, shard.vectors.shape[1]):
                raise ValueError(f"has {shard.vectors.shape[1]} dimensions, not {self._dim}")
        except FileNotFoundError:
            return
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            _warn_ignored(path, " ".join(str(error).split()))
            return
        self._dim = shard.vectors.shape[1]
        self._shards.append(shard)
        self._n_rows += len(shard.keys)
        raw = shard.keys.tobytes()
        starts = range(0, len(raw), _DIGEST_BYTES)
        digests = (raw[i : i + _DIGEST_BYTES] for i in starts)
        self._row_of.update(zip(digests, range(shard.start, self._n_rows), strict=True))


def _digest(text: str) -> bytes:
    # Half of a surrogate pair is not UTF-8, but it is a text like any other.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _content_sha256(keys: npt.NDArray[np.uint8], vectors: FloatArray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(keys).data)
    content.update(np.ascontiguousarray(vectors).data)
    return content.hexdigest()


def _write(
    folder: Path,
    spec: EncoderSpec,
    keys: npt.NDArray[np.uint8],
    vectors: FloatArray,
    remote: Remote | None,
) -> Path:
    vectors = np.ascontiguousarray(vectors, dtype="<f4")
    metadata = {
        "spec": spec.key,
        "model": spec.model,
        "sha256": _content_sha256(keys, vectors),
    }
    content = save({"keys": keys, "vectors": vectors}, metadata)
    path = folder / (hashlib.sha256(keys.tobytes()).hexdigest()[:32] + _SUFFIX)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    _make_folder(folder)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name with no content
        if remote is not None:
            remote.upload({path.name: temporary})
        temporary.replace(path)
    except OSError as error:
        raise _translated(error, folder) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _open_shard(path: Path, spec: EncoderSpec, *, start: int) -> _Shard:
    with safe_open(path, framework="np") as file:  # also checks the header against the size
        metadata: dict[str, str] = file.metadata() or {}
    if metadata.get("spec") != spec.key:
        raise ValueError("it is not of this encoder")
    keys, vectors = _map_tensors(path, {"keys": ("U8", "|u1"), "vectors": ("F32", "<f4")})
    if keys.shape != (len(vectors), _DIGEST_BYTES):
        raise ValueError(f"keys {keys.shape!r} do not fit vectors {vectors.shape!r}")
    return _Shard(path, start, keys, vectors, metadata["sha256"])


def _map_tensors(path: Path, wanted: dict[str, tuple[str, str]]) -> list[npt.NDArray[Any]]:
    """Memory-map tensors of a safetensors file, which its library would read into memory.

    Source: https://huggingface.co/docs/safetensors (format: 8 bytes of header length, JSON,
    data).
    """
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_header))
    arrays: list[npt.NDArray[Any]] = []
    for name, (kind, dtype) in wanted.items():
        entry = header[name]
        if entry["dtype"] != kind:
            raise ValueError(f"{name!r} is {entry['dtype']!r}, not {kind!r}")
        offset = 8 + n_header + entry["data_offsets"][0]
        shape = tuple(entry["shape"])
        arrays.append(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))
    return arrays


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _translated(error, folder) from error


def _translated(error: OSError, folder: Path) -> RedRayError:
    where = f"cannot use {str(folder)!r} for embeddings: {error.strerror or error}"
    if error.errno in _DISK_ERRORS:
        return StorageError(f"{where}; make room, or set {ROOT_VARIABLE} to another place")
    return OutputError(f"{where}; set {ROOT_VARIABLE} or encoder.store to a folder of your own")


def _warn_ignored(path: Path, reason: str) -> None:
    logger.warning("embedding shard ignored: path=%s reason=%s", path, reason)
