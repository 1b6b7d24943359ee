"""Runs the cells of a matrix as Ray tasks, each in a process of its own, within its limits.

A task gives the files of its cell back, so that no disk is shared, and the driver writes them. A
cell that fails, takes too long or too much memory is a hole with a reason, and the rest goes on.
What is finished is not run again, unless what it depends on has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import yaml

from benchmarks.cells import source_hash
from benchmarks.matrix.cautions import check_apart
from benchmarks.matrix.config import Cell, Column, MatrixConfig
from benchmarks.matrix.execute import Order
from benchmarks.matrix.methods import sources_of
from benchmarks.matrix.process import Work, hole, run_cell
from benchmarks.matrix.results import CELL, MATRIX, USES
from benchmarks.matrix.tasks import Loaded, load_task
from red_ray.errors import ConfigError, OutputError
from red_ray.storage import writing

HERE = Path(__file__).resolve().parent
LOST = 2
"""Times a cell is begun again whose machine was lost."""

COMMON = ("tasks", "measure", "metrics")
"""Modules beside this one that every cell goes through."""

Tell = Callable[[Cell, str, str], None]
"""Called with a cell, its status and one line as it ends."""


def run_matrix(
    config: MatrixConfig,
    out: Path,
    *,
    only: str = "",
    again: bool = False,
    session: Callable[[], AbstractContextManager[object]] = nullcontext,
    tell: Tell = lambda *_: None,
) -> int:
    """Run what is missing or has changed.

    Args:
        config: the matrix.
        out: its folder.
        only: run only cells whose name contains this.
        again: whether holes are tried again that are as they were.
        session: connects to Ray; entered once the rows are read, where there is a cell to run.
        tell: hears of each cell that ends.

    Returns:
        How many cells were run.

    Raises:
        ConfigError: the folder holds another matrix.
        DataError: the rows of a task cannot be read.
        OutputError: another process runs this matrix, or its folder cannot be written.
        StorageError: the disk is full.
    """
    with _held(out):
        _see_name(config, out)
        todo = list(_works(config, out, only, again))
        # Not before: of rows that cannot be read, finished cells would stand under new settings.
        with writing(out):
            _write_config(config, out)
            _note_uses(config, out, todo)
        if todo:
            with session():
                for work, files in _done(todo):
                    with writing(out):
                        _keep(out, work, files)
                    stated = json.loads(files[CELL])
                    tell(work.order.cell, stated["status"], stated["error"])
    return len(todo)


def _works(config: MatrixConfig, out: Path, only: str, again: bool) -> Iterator[Work]:
    loaded: dict[tuple[str, int], Loaded] = {}
    # Seed by seed: a matrix that is stopped halfway has whole seeds to show.
    for cell in sorted(config.cells, key=lambda cell: cell.seed):
        if only not in cell.name:
            continue
        key = (cell.task, cell.seed)
        if key not in loaded:
            loaded[key] = load_task(cell.task, config.tasks[cell.task], cell.seed)
            check_apart(loaded[key])
        column = config.column(cell.column)
        digest = digest_of(cell, column, loaded[key], config)
        if _is_finished(out / cell.name / CELL, digest, again):
            continue
        yield Work(
            Order(
                cell,
                _placed(column),
                loaded[key],
                config.n_single,
                config.batch_size,
                config.keep_models,
            ),
            digest,
            column.time_s or config.time_s,
            column.memory_mb or config.memory_mb,
        )


def _placed(column: Column) -> Column:
    """With the whole path of a model's folder: a worker may run in another one."""
    model = getattr(column, "model", "")
    if not model or not Path(model).is_dir():
        return column
    return column.model_copy(update={"model": str(Path(model).absolute())})


def digest_of(cell: Cell, column: Column, loaded: Loaded, config: MatrixConfig) -> str:
    """SHA-256 of all that a cell's result depends on: rows, settings, sources."""
    task = loaded.task
    stated = {
        "column": column.of_result,
        "seed": cell.seed,
        "rows": [loaded.train_key, loaded.report_key, len(task.train)],
        "task": [task.labels, task.words, task.instruction, task.columns, loaded.positive],
        "measured": [config.n_single, config.batch_size, config.keep_models],
    }
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    digest.update(_sources(column.method))
    return digest.hexdigest()


def _sources(method: str) -> bytes:
    """Of red_ray and of the modules here, what a method's cells go through."""
    own, parts = sources_of(method)
    paths = [*(HERE / f"{name}.py" for name in COMMON), *own]
    return source_hash(parts) + b"".join(path.read_bytes() for path in paths)


def _mark(config: MatrixConfig) -> str:
    """Of a look at report rows: another one where settings or sources have changed since."""
    tasks = {name: task.model_dump(mode="json") for name, task in config.tasks.items()}
    stated = [config.seeds, tasks, [[one.name, one.of_result] for one in config.columns]]
    mark = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for method in sorted({column.method for column in config.columns}):
        mark.update(_sources(method))
    return mark.hexdigest()[:16]


def _is_finished(path: Path, digest: str, again: bool) -> bool:
    if not path.exists():
        return False
    stated = json.loads(path.read_text(encoding="utf-8"))
    is_same = stated["digest"] == digest
    return is_same and (stated["status"] == "done" or not again)


def _done(todo: Sequence[Work]) -> Iterator[tuple[Work, dict[str, bytes]]]:
    """The files of each cell, as it ends."""
    import ray

    task, waiting = ray.remote(max_retries=LOST)(run_cell), {}
    for work in todo:
        column = work.order.column
        why = _no_room(column)
        if why:
            yield work, hole(work, "failed", why)
            continue
        asked = {"num_cpus": column.num_cpus, "num_gpus": column.num_gpus}
        waiting[task.options(**asked, name=work.order.cell.name).remote(work)] = work
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        work = waiting.pop(ready[0])
        try:
            files = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            files = hole(work, "failed", f"its machine or worker was lost: {type(error).__name__}")
        yield work, files


def _no_room(column: Column) -> str:
    """Why no machine of the cluster can ever run a column; empty where one can."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": column.num_cpus, "GPU": column.num_gpus}
    if any(all(node.get(name, 0) >= n for name, n in asked.items()) for node in nodes):
        return ""
    told = " and ".join(f"{n:g} {name}" for name, n in asked.items() if n)
    return f"it asks for {told}, which no machine of the cluster has"


def _keep(out: Path, work: Work, files: Mapping[str, bytes]) -> None:
    """Write a cell's folder, whole or not at all."""
    place, fresh = out / work.order.cell.name, out / f".{work.order.cell.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    for name, content in files.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(content)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)


def _see_name(config: MatrixConfig, out: Path) -> None:
    path = out / MATRIX
    if path.exists():
        held = yaml.safe_load(path.read_text(encoding="utf-8"))["name"]
        if held != config.name:
            raise ConfigError(f"{str(out)!r} holds the matrix {held!r}, not {config.name!r}")


def _write_config(config: MatrixConfig, out: Path) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (out / MATRIX).write_text(text, encoding="utf-8")


def _note_uses(config: MatrixConfig, out: Path, todo: Sequence[Work]) -> None:
    """Write down which report rows are reported on: here, and for the matrices to come."""
    keys = sorted({work.order.loaded.report_key for work in todo})
    mark = _mark(config)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [json.dumps({"report_key": key, "matrix": mark, "at": now}) for key in keys]
    shared = _shared_uses()
    known = shared.read_text(encoding="utf-8").splitlines() if shared.exists() else []
    here = out / USES
    own = here.read_text(encoding="utf-8").splitlines() if here.exists() else []
    of_these = [line for line in known if json.loads(line)["report_key"] in keys]
    merged = list(dict.fromkeys([*own, *of_these, *lines]))
    here.write_text("".join(f"{line}\n" for line in merged), encoding="utf-8")
    with shared.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _shared_uses() -> Path:
    """Of this user, whatever folder a matrix is in."""
    place = Path(os.environ.get("RED_RAY_MATRIX_USES", "~/.cache/red_ray/matrix_uses.jsonl"))
    path = place.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _held(out: Path) -> Iterator[None]:
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another process runs the matrix in {str(out)!r}") from error
        yield
    finally:
        os.close(lock)
