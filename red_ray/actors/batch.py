"""Batch classification over Ray Data: one of its rows is one shard.

One task reads the table, on the driver's machine; a pool of actors classifies. Each writes the
parts of its shards, and gives back their lines for the manifest. What must be shared: the folder of
the output, between the driver and every machine of the cluster, under the same path, or else an
address (`red_ray.address`). The input and
the run's folder need not be: the shards and the model travel through the object store. The encoder
is found on each machine as in training.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.exceptions import RayError

from red_ray.actors import logs
from red_ray.actors.batch_rows import (
    failure,
    finished_shards,
    outcome,
    pack,
    pack_error,
    unpack,
)
from red_ray.actors.cluster import fetch, free_cpus
from red_ray.actors.metrics import Meter, tell_classified
from red_ray.address import is_address, shown
from red_ray.batch import Finished, classify_shard, read_shards
from red_ray.errors import ConfigError, RedRayError, RunError, last_line
from red_ray.model import RedModel

READ_CPUS = 1
"""Logical processors that the actors leave free: Ray Data hangs without a word where its actors
take all and nothing can be read any more. The task that reads claims none of them by itself, so
that nobody's claim can keep it waiting, wherever the actors were placed."""

IN_STORE_BYTES = 256 * 2**20
"""What may wait in the object store between reading and classifying, however large the table."""

PER_ACTOR = 2
"""Shards that an actor is given at a time: one to classify, one so that it never waits."""

LoadModel = Callable[[RedModel], RedModel]


def n_classifiers(n_cpus: float) -> int:
    """How many actors classify, one for each logical processor but those left for reading.

    Args:
        n_cpus: free logical processors of the cluster.

    Raises:
        ConfigError: none is left to classify.
    """
    n_actors = int(n_cpus) - READ_CPUS
    if n_actors < 1:
        raise ConfigError(
            f"the cluster has {n_cpus:g} free logical CPUs, and to classify there takes at least "
            f"{READ_CPUS + 1}: one reads, the others classify; add some, wait for those who use "
            "them, or take --engine local"
        )
    return n_actors


def classify_on_ray(
    model: RedModel,
    source: Path,
    folder: Path | str,
    *,
    top_k: int,
    done: Collection[int] = (),
    load: LoadModel | None = None,
) -> Generator[Finished, None, None]:
    """Classify a table on the cluster that this process is connected to.

    An actor that dies is started again, and its shards are given out again.

    Args:
        model: decides.
        source: the table, as this machine sees it.
        folder: where the parts go, as every machine sees it, or an address.
        top_k: a decision carries the `top_k - 1` next labels.
        done: shards that are finished already.
        load: makes a model ready in its actor; by default its encoder is loaded.

    Yields:
        The shards as they are finished, in no order.

    Raises:
        ConfigError: the cluster has too few processors.
        RedRayError: whatever stopped it, as the reader or a worker raised it.
        RunError: Ray could not go on.
    """
    n_actors = n_classifiers(free_cpus())
    _quiet()
    with ray.data.DataContext.current(_context()):
        shards = ray.data.read_datasource(
            ShardSource(source, model.config.text_column, frozenset(done)),
            override_num_blocks=1,
            num_cpus=0,
        )
        lines = shards.map_batches(
            ShardClassifier,
            fn_constructor_args=(ray.put(replace(model, encoder=None)), folder, top_k, load),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(
                size=n_actors, max_tasks_in_flight_per_actor=PER_ACTOR
            ),
        )
        try:
            # One at a time: a line that waits for the next one would be lost with a killed driver.
            yield from finished_shards(
                lines.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            )
        except RayError as error:  # not of ours: those travel as rows
            raise RunError(f"a worker failed: {last_line(error)}") from error


class ShardSource(Datasource):
    """The shards of a table as rows; read by one task, on the driver's machine.

    In one go, since most formats can be read from their beginning only.
    """

    def __init__(self, source: Path, text_column: str, done: frozenset[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._read = partial(_packed_shards, source.absolute(), text_column, done)

    @property
    def supports_distributed_reads(self) -> bool:
        """Never: the table is on the driver's disk."""
        return False

    def estimate_inmemory_data_size(self) -> None:
        """Not known before it is read."""

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """One, whatever is asked for."""
        return [ReadTask(self._read, BlockMetadata(None, None, None, None))]


def _packed_shards(source: Path, text_column: str, done: frozenset[int]) -> Iterator[pa.Table]:
    try:
        for shard in read_shards(source, text_column, done):
            yield pack(shard)
    except RedRayError as error:
        yield pack_error(error)


class ShardClassifier:
    """Classifies shards and writes their parts; an actor of Ray Data's pool."""

    def __init__(self, model: Any, folder: Path | str, top_k: int, load: LoadModel | None) -> None:
        self._reference = model
        self._folder = folder
        self._top_k = top_k
        self._load = load or with_own_encoder
        name = Path(shown(str(folder)) if is_address(folder) else folder).name
        logs.begin(name, actor="classifier")
        self._meter = Meter(output=name)

    @cached_property
    def _model(self) -> RedModel:
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return self._load(fetch(self._reference))

    def __call__(self, row: pa.Table) -> pa.Table:
        """What came of the shard in `row`."""
        shard = unpack(row)
        if isinstance(shard, RedRayError):
            return failure(shard, is_unread=True)
        try:
            done = classify_shard(self._model, shard, self._folder, top_k=self._top_k)
        except RedRayError as error:
            return failure(error, is_unread=False)
        tell_classified(self._meter, done.counts)
        return outcome(done)


def with_own_encoder(model: RedModel) -> RedModel:
    """The model with its encoder on one thread: the actor has one processor."""
    return replace(model, encoder=model.load_encoder(n_threads=1))


def _context() -> ray.data.DataContext:
    """Ray Data's settings: silent, little at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a setting that it copies
        context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # a block for each shard: blocks are what actors share
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=IN_STORE_BYTES)
    return context


def _quiet() -> None:
    """Keep Ray Data's log in its file; what a user must know is in the errors."""
    # From a thread of Ray Data's, where a table has fewer shards than there are actors.
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors", UserWarning)
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
