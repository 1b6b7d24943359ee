"""A batch from shards to output: in this process, or over Ray Data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from red_ray.address import is_address
from red_ray.cli.console import Output, catch_sigterm
from red_ray.cli.running import beginning
from red_ray.errors import DataError, JudgeError, RedRayError

if TYPE_CHECKING:
    from red_ray.batch import PartsFolder, RemoteParts, Shard
    from red_ray.cli.escalating import Asking
    from red_ray.config import RunConfig
    from red_ray.model import RedModel

Engine = Literal["auto", "local", "ray"]
Tell = Callable[[str], None]

STDERR = 2

LOCAL_ROWS = 50_000
"""Rows that this process classifies alone: below that Ray's start costs more than it can bring."""

LOCAL_PROCESSORS = 2
"""One process keeps so many busy by itself, whatever the table: measured with 100,000 rows on two,
0.90 of the encoder's own throughput where Ray Data has 0.74."""

LOCAL_BYTES = 256 * 2**20
"""What is held of a table at most to see whether it has more rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A classification under way; `shards` are those that are not finished."""

    model: RedModel
    source: Path
    top_k: int
    parts: PartsFolder | RemoteParts
    shards: Iterator[Shard]

    def classify_here(self, tell: Tell, asked: Asking | None = None) -> None:
        """In this process, perhaps asking a judge."""
        from red_ray.batch import classify_here

        start, n_before = perf_counter(), self.parts.counts.rows
        escalate = asked.begin if asked is not None else None
        done = classify_here(
            self.model, self.shards, self.parts, top_k=self.top_k, escalate=escalate
        )
        with closing(done):  # at once, where an error ends it
            for counts in done:
                if asked is not None:
                    asked.check_is_of_use()
                tell(_progress(n_before, counts.rows, perf_counter() - start))

    def classify_on_ray(self, tell: Tell) -> None:
        """On the cluster that this process is connected to."""
        from red_ray.actors.batch import classify_on_ray

        start, n_before = perf_counter(), self.parts.counts.rows
        done = classify_on_ray(
            self.model, self.source, self.parts.path, top_k=self.top_k, done=set(self.parts.done)
        )
        with closing(done):
            for finished in done:
                self.parts.add(finished)
                n_rows = self.parts.counts.rows - n_before
                tell(_progress(n_before, n_rows, perf_counter() - start))


@contextmanager
def opened(
    output: Output,
    model: RedModel,
    source: Path,
    target: str,
    *,
    top_k: int,
    config: RunConfig | None,
    keep: tuple[bool, bool],
) -> Iterator[Batch]:
    """Begin an output or go on with it; it is put together where the block ends well.

    Args:
        output: told what is left where it does not.
        model: decides.
        source: the input.
        target: the output, or its address.
        top_k: labels that a decision names.
        config: under which a judge is asked, None where nobody is.
        keep: whether to go on with what is unfinished, and whether to replace what is finished.

    Raises:
        DataError: the input cannot be read.
        OutputError: the output cannot be written, or must not be replaced.
        StorageError: the disk is full.
    """
    from red_ray.batch import Job, PartsFolder, RemoteParts, read_shards

    resume, overwrite = keep
    shards = read_shards(source, model.config.text_column)
    job = Job.of(source, model.bundle_id, top_k=top_k, asking=config)
    begun: PartsFolder | RemoteParts
    if is_address(target):
        begun = RemoteParts.open(target, job, resume=resume, overwrite=overwrite)
    else:
        begun = PartsFolder.open(Path(target), job, resume=resume, overwrite=overwrite)
    with begun as parts:
        pending = (shard for shard in shards if shard.number not in parts.done)
        with _telling_what_is_left(output, parts):
            yield Batch(model, source, top_k, parts, pending)
            with output.err.status("putting the parts together"):
                parts.finish()


@contextmanager
def _telling_what_is_left(output: Output, parts: PartsFolder | RemoteParts) -> Iterator[None]:
    try:
        yield
    except (RedRayError, KeyboardInterrupt) as error:
        n_rows = parts.counts.rows
        left = f"{n_rows:,} rows are kept: the same command with --resume goes on"
        if isinstance(error, KeyboardInterrupt):
            error.args = (f"stopped; {left if n_rows else 'nothing was finished yet'}",)
        elif isinstance(error, JudgeError):
            again = left if n_rows else "run the same command again"
            output.note(f"what the judge answered is in the ledger; {again}")
        elif n_rows and not isinstance(error, DataError):  # a table that is mended is another one
            output.note(left)
        raise


def classify_batch(output: Output, batch: Batch, engine: Engine) -> None:
    """Classify the shards that are not finished, where `engine` says.

    Raises:
        ConfigError: the cluster has too few processors.
        RedRayError: whatever stopped it.
    """
    is_asked_for = engine == "ray"
    if engine == "auto":
        batch, is_large = _looked_at(batch)
        engine = "ray" if is_large else "local"
    if engine == "ray":
        with _quiet_core(), output.doing(beginning()) as tell, _ray():
            if is_asked_for or not is_busy_here():
                tell("starting the classifiers")
                batch.classify_on_ray(tell)
                return
        output.note("the processors of the cluster, this machine's, are at work: without it, then")
    with output.doing("classifying") as tell:
        batch.classify_here(tell)


def is_busy_here() -> bool:
    """Whether the cluster that is joined is this machine alone, and has no room to classify."""
    if not os.environ.get("RAY_ADDRESS"):
        return False
    from red_ray.actors.batch import READ_CPUS
    from red_ray.actors.cluster import free_cpus, room

    return room().n_nodes == 1 and free_cpus() < READ_CPUS + 1


def _looked_at(batch: Batch) -> tuple[Batch, bool]:
    """The batch, and whether it is for Ray: on a cluster all are, else those of many rows where
    there are many processors."""
    from red_ray.encoding.encoder import available_processors
    from red_ray.encoding.resolve import choose_device

    if os.environ.get("RAY_ADDRESS"):
        return batch, True
    if choose_device() == "cuda":  # one process feeds it; several would each take its memory
        return batch, False
    if available_processors() <= LOCAL_PROCESSORS:
        return batch, False
    held: list[Shard] = []
    n_rows = n_bytes = 0
    for shard in batch.shards:
        held.append(shard)
        n_rows += shard.table.num_rows
        n_bytes += shard.table.nbytes
        if n_rows > LOCAL_ROWS or n_bytes > LOCAL_BYTES:
            return batch, True  # the table is read again, by a worker
    return replace(batch, shards=chain(held)), False


@contextmanager
def _ray() -> Iterator[None]:
    # Before Ray is imported: it reads its settings then.
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from red_ray.actors.batch import READ_CPUS
    from red_ray.actors.cluster import ray_session
    from red_ray.encoding.encoder import available_processors

    # Ray tells of a worker's death on stdout, where the result stands alone.
    with (
        redirect_stdout(sys.stderr),
        ray_session(num_cpus=available_processors() + READ_CPUS),
    ):
        catch_sigterm()  # Ray took it
        yield


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Keep off the terminal what Ray's core writes there past Python, and into its log anyway.

    It warns of every pool of Ray Data's own actors. What Python writes still arrives.
    """
    with ExitStack() as stack:
        terminal = os.dup(STDERR)
        stack.callback(os.close, terminal)
        stack.callback(os.dup2, terminal, STDERR)
        if sys.stderr is sys.__stderr__:
            stderr = os.fdopen(os.dup(STDERR), "w", 1, errors="backslashreplace")
            stack.enter_context(redirect_stderr(stack.enter_context(stderr)))
        nowhere = stack.enter_context(open(os.devnull, "wb"))
        os.dup2(nowhere.fileno(), STDERR)
        yield


def _progress(n_before: int, n_rows: int, seconds: float) -> str:
    return f"{n_before + n_rows:,} rows, {n_rows / seconds:,.0f} a second"
