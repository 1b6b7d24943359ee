"""The bundle that answers, and how a newer one is noticed and made ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np

from red_ray.address import Remote, is_address, shown
from red_ray.bundle import MANIFEST, PROVENANCE, load_bundle
from red_ray.config import RunConfig, load_config, merge
from red_ray.encoding.store import copies_of
from red_ray.errors import BundleError, ConfigError, DataError
from red_ray.model import RedModel, TextEncoder
from red_ray.run_folder import RunFolder
from red_ray.working_copy import look_of, snapshot
from serve.settings import ServeSettings

OFF = "off"
"""In place of a judge: nobody is asked."""

WARM_BATCHES, WARM_LENGTHS = (1, 2, 3, 4, 6, 8, 12), (0.0, 0.4, 0.7, 0.9, 0.97, 0.99, 1.0)
"""Texts together, and of which length among the examples, that an encoder meets before any other:
some two seconds."""

Stamp = tuple[str, int]
"""Which bundle lies at a place: its real folder, and a hash of what its files look like from
outside: it changes too while one is copied whose manifest came before the rest."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bundle that was tested and may answer.

    Attributes:
        model: with its encoder.
        run: its folder, links resolved; of a run at an address a copy of it.
        config: the run's as it stands now, perhaps with another judge.
        stamp: by which a newer one is noticed.
        at: when it was loaded, UTC.
        texts_per_s: throughput of one full batch, as the test of it found.
        address: of the run, empty where it is a folder.
    """

    model: RedModel
    run: RunFolder
    config: RunConfig
    stamp: Stamp
    at: datetime
    texts_per_s: float
    address: str = ""

    @property
    def place(self) -> str:
        """By which other processes find the run: its address, else its folder, links resolved."""
        return self.address or str(self.run.path)

    @property
    def folder(self) -> Path:
        """The bundle's."""
        return self.run.bundle

    @property
    def judge(self) -> str | None:
        """Who is asked about escalated texts."""
        return self.config.judge.spec


def stamp_of(run: str) -> Stamp:
    """See `Stamp`.

    Raises:
        DataError: there is no finished run.
        OutputError: its address is denied.
        StorageError: its address cannot be reached.
    """
    if is_address(run):
        return _stamp_at(Remote(run))
    folder = _run_of(run)
    if not (folder.bundle / MANIFEST).is_file():
        raise DataError(f"{run!r} is no finished run: it has no bundle/{MANIFEST}")
    with _reading(folder):
        files = {path: path.stat() for path in folder.bundle.rglob("*") if path.name != PROVENANCE}
    looks = sorted(
        (str(path), one.st_ino, one.st_mtime_ns, one.st_size) for path, one in files.items()
    )
    return str(folder.path), hash(tuple(looks))


def _stamp_at(remote: Remote) -> Stamp:
    files = remote.below("bundle").list()
    if MANIFEST not in files:
        raise DataError(f"{remote.name!r} is no finished run: it has no bundle/{MANIFEST}")
    files.pop(PROVENANCE, None)
    return remote.name, hash(look_of(remote, files))


def load(run: str, settings: ServeSettings, before: Loaded | None = None) -> Loaded:
    """Load the run's bundle with its encoder, and test it; blocks for seconds.

    Args:
        run: its folder, a link to it, or its address.
        settings: the endpoint's.
        before: what answers now; its encoder is taken over where it is the same.

    Raises:
        RedRayError: there is none, it is damaged, its encoder is not here, it fails the test, or it
            has no place for what people will say.
    """
    stamp = stamp_of(run)
    folder = run_at(run)
    with _reading(folder):
        model = load_bundle(folder.bundle)
    config = judged(folder, settings)
    check_can_keep(run, config)
    if before is not None and _is_same_encoder(before.model, model):
        model = replace(model, encoder=before.model.loaded_encoder)
    else:
        encoder = model.load_encoder(n_threads=settings.threads)
        model = replace(model, encoder=encoder)
        _warm_up(encoder, model.example_texts)
    speed = _tested(model, settings.batch_texts)
    address = run if is_address(run) else ""
    return Loaded(model, folder, config, stamp, datetime.now(UTC), speed, address)


def judged(run: RunFolder, settings: ServeSettings) -> RunConfig:
    """The run's configuration with the judge of the endpoint's settings.

    Raises:
        ConfigError: it cannot be read, or a key does not fit.
    """
    spec = settings.judge.spec
    path = run.path / "config.yaml"
    if spec is None:
        return load_config(path)
    return load_config(path, merge({}, {"judge": {"spec": None if spec == OFF else spec}}))


def _is_same_encoder(one: RedModel, other: RedModel) -> bool:
    if one.tuned != other.tuned:
        return False
    if one.encoder_spec is None:  # it cannot be said what made its embeddings
        return other.encoder_spec is None and one.encoder_config == other.encoder_config
    return one.encoder_spec == other.encoder_spec


@contextmanager
def _reading(run: RunFolder) -> Iterator[None]:
    """A file that goes away or cannot be opened is a fault of the bundle."""
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"cannot read the bundle {str(run.bundle)!r}: {error.strerror}"
        ) from error


def check_can_keep(run: str, config: RunConfig) -> None:
    """Refuse a run at an address that has no place for what judge and people will say.

    Raises:
        ConfigError: its configuration names no database.
    """
    if is_address(run) and not config.judge.ledger:
        raise ConfigError(
            f"what judge and people say of {shown(run)!r} needs a database: train it with --set "
            "judge.ledger=postgresql://user@host/database, or serve a copy in a local folder"
        )


def run_at(run: str) -> RunFolder:
    """The run's folder as it is now; one at an address is copied to this machine once.

    Raises:
        DataError: it is being written.
        OutputError: its address is denied.
        StorageError: its address cannot be reached, or the local disk is full.
    """
    return RunFolder(snapshot(run, copies_of(run))) if is_address(run) else _run_of(run)


def _run_of(run: str) -> RunFolder:
    # Resolved once: a link that is moved meanwhile must not mix two runs.
    return RunFolder(Path(run).resolve())


def _warm_up(encoder: TextEncoder, texts: Sequence[str]) -> None:
    """Let the encoder see the shapes of small batches: the first one of each takes longer."""
    by_length = sorted(texts, key=len)
    for n_texts in WARM_BATCHES:
        for share in WARM_LENGTHS:
            start = int(share * max(0, len(by_length) - n_texts))
            encoder.encode(by_length[start : start + n_texts])


def _tested(model: RedModel, n_texts: int) -> float:
    """Classify some of the model's own examples; how many texts a second that were.

    Raises:
        BundleError: what it says of them cannot be used.
    """
    texts = [model.example_texts[at % len(model.example_texts)] for at in range(n_texts)]
    model.predict(texts[:1])  # fills what is computed once
    start = perf_counter()
    found = model.assess(texts, model.loaded_encoder.encode(texts))
    seconds = perf_counter() - start
    if not np.isfinite(found.distribution).all() or len(model.decide(found)) != n_texts:
        raise BundleError(f"the bundle {model.bundle_id[:16]} gives no finite probabilities")
    return n_texts / seconds
