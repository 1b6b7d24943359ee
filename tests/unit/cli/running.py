"""Files to give a command, runs that it can open, and what it must have said."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from click.testing import Result

from red_ray.bundle import save_bundle
from red_ray.core.text import text_key
from red_ray.evaluation.details import run_details
from red_ray.run_folder import RunFolder
from red_ray.training import Trained
from tests.unit.training.fakes import Corpus


def write_rows(path: Path, rows: Sequence[Sequence[str]], *header: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_run(path: Path, corpus: Corpus, trained: Trained) -> RunFolder:
    """A finished run without test rows, as `train` leaves it."""
    run = RunFolder.create(path, trained.model.config)
    run.write_seen(text_key(text) for text in (*corpus.texts, *corpus.pool))
    for iteration in trained.iterations:
        run.append(iteration)
    save_bundle(trained.model, run.bundle, {"timing_s": {"total": 1.0}})
    run.write_json("details.json", run_details(trained, trained.model.config.judge.spec))
    run.finish()
    return run


def said(result: Result, code: int, *words: str) -> str:
    """The one line on stderr of a command that ended with `code`; it holds `words`."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("red-ray: ")
    for word in words:
        assert word in lines[0]
    return lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
