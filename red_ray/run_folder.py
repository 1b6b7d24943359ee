"""A run's folder: what stands in it and how it is written.

config.yaml       the resolved configuration
bundle/           the trained model
iterations.jsonl  the loop's history, one line per iteration
ledger.sqlite     every request and verdict; beside it a lock and, while requests are made, 4 MiB
                  that make room for what was paid for should the disk fill up
inputs.parquet    its rows, so that it can go on wherever the folder is
run.json          its id in the ledger, whether it is finished, and what it was begun with
seen.txt          keys of the texts that have a say in the model, so that no test row is one of them
crossfit.safetensors
                  held-out scores of its rows, so that a change of labels need not fit all anew
history/          the states before the last changes of its labels (see `red_ray.history`)
tested.txt        keys of the texts that `evaluate` scored, so that none of them sets a threshold
disputed.csv      labels that a person should look at, with a column for the answer; one whose
                  answers were not imported when the next run began is kept as disputed.1.csv
paraphrases.jsonl what the judge wrote to teach labels that had few texts, an object a line: what
                  it says in other words, and whether an expert learned it
details.json      what the report shows beyond the scorecard
scorecard.json    the scorecard
report.html       the report
thresholds.svg    the curve behind thresholds that were derived after the training

A run at an address (see `red_ray.working_copy`) has no ledger.sqlite: its verdicts are in
PostgreSQL.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from red_ray.bundle import MANIFEST, read_provenance
from red_ray.config import RunConfig, dump_config
from red_ray.core.text import encodable
from red_ray.errors import ConfigError, DataError, OutputError, StorageError
from red_ray.history import FOLDER, PENDING, settle
from red_ray.storage import set_aside, writing
from red_ray.types import Iteration
from red_ray.working_copy import Place, WorkingCopy

logger = logging.getLogger(__name__)

CROSSFIT, ENCODERS = "crossfit.safetensors", "encoders"

STATE, LOCK, DISPUTED, TESTED = "run.json", ".lock", "disputed.csv", "tested.txt"
PARAPHRASES = "paraphrases.jsonl"

RESULTS = ("details.json", "scorecard.json", "report.html", "thresholds.svg", DISPUTED, PARAPHRASES)
"""What a run leaves beside its bundle and its history."""

OF_TEST_ROWS = (
    "confusions",
    "reliability",
    "experts",
    "labels",
    "confidence_histogram",
    "none_histogram",
)
"""What details.json says of the test rows."""

OF_A_RUN = (
    STATE,
    "config.yaml",
    "iterations.jsonl",
    "seen.txt",
    TESTED,
    "inputs.parquet",
    CROSSFIT,
    ENCODERS,
    FOLDER,
    "bundle",
)
"""What else belongs to one run and not to the next in the same folder, as the ledger does."""

GONE_ON_WITH = ("config.yaml", "inputs.parquet", "seen.txt")
"""What a run needs of the one that its budget stopped."""


@dataclass(frozen=True, slots=True)
class _State:
    id: str
    finished: bool = False
    n_done: int = 0
    config: dict[str, Any] | None = None  # of runs begun before it was kept: None


class RunFolder:
    """Reads and writes a run's folder; what it writes is whole or not there.

    Attributes:
        path: the folder; of a run at an address the local copy of it.
        name: the folder, or the address, for messages and commands.
        was_put_back: whether a run failed, and the finished one that stood here before is back.
        kept_answers: the table of a person's answers that was kept from the run before, if any.
    """

    def __init__(self, place: Path | WorkingCopy) -> None:
        self._copy = place if isinstance(place, WorkingCopy) else None
        self.name = place.name if isinstance(place, WorkingCopy) else str(place)
        self.path = path = place.path if isinstance(place, WorkingCopy) else place
        self.bundle = path / "bundle"
        self.ledger = path / "ledger.sqlite"
        self.was_put_back = False
        self.kept_answers: Path | None = None
        self._lock: int | None = None

    @classmethod
    def create(
        cls,
        place: Place,
        config: RunConfig,
        *,
        overwrite: bool = False,
        keep_answers: bool = False,
    ) -> RunFolder:
        """Begin a run; the ledger of one that was here before still answers.

        Args:
            place: the folder; its parents are made.
            config: resolved; written at once.
            overwrite: whether a run may be replaced: a finished one is set aside until the new one
                is there (see `replacing`); its ledger stays.
            keep_answers: whether `disputed.csv` must not be lost.

        Raises:
            OutputError: it cannot be written, holds something else, or a run.
        """
        run = cls(place)
        if run.path.exists() and (not run.path.is_dir() or run._is_foreign()):
            raise OutputError(f"{run.name!r} exists and is no run folder; choose another --out")
        with run._holding():
            run._begin(config, overwrite=overwrite, keep_answers=keep_answers)
        return run

    def _begin(self, config: RunConfig, *, overwrite: bool, keep_answers: bool) -> None:
        with writing(self.path):
            if not (self.bundle / MANIFEST).exists():
                self._put_back()  # what a killed run had set aside
            if not overwrite:
                self._refuse_run()
            self._claim()
            self._keep_answers(keep_answers)
            self._set_aside()
        self.write_config(config)
        self._write("iterations.jsonl", "")
        # Last: what has it can be gone on with. A new id: under the old one the ledger holds what
        # failed in the rounds of another run.
        self._write_state(_State(uuid.uuid4().hex, config=config.model_dump(mode="json")))

    def _refuse_run(self) -> None:
        where = self.name
        if self.is_resumable:
            raise OutputError(
                f"{where!r} holds an unfinished run: `red-ray resume {where}` goes on with it; "
                "or choose another --out, or add --overwrite (its ledger stays)"
            )
        if (self.bundle / MANIFEST).exists():
            raise OutputError(
                f"{where!r} holds a finished run; choose another --out or add --overwrite"
            )

    def _keep_answers(self, must: bool) -> None:
        if must and (self.path / DISPUTED).exists():
            self.kept_answers = set_aside(self.path / DISPUTED)

    @classmethod
    def resume(
        cls, place: Place, *, keep_answers: bool = False, config: RunConfig | None = None
    ) -> tuple[RunFolder, int]:
        """Go on with a run that was cut short, or that its budget stopped.

        Args:
            place: the folder.
            keep_answers: whether `disputed.csv` must not be lost.
            config: in place of the run's own, with other limits. With it a finished run that its
                budget stopped goes on, set aside meanwhile (see `replacing`).

        Returns:
            Its folder, and how many iterations it had finished: they are run again, from the
            ledger, and come out the same.

        Raises:
            DataError: there is none.
            ConfigError: it is finished, or its labels were changed since.
            OutputError: another process works on it, or it cannot be written.
        """
        run = cls(place)
        if run._state() is None:
            raise DataError(f"{run.name!r} is no run: it has no {STATE}; `red-ray train` makes one")
        with run._holding():
            return run, run._go_on(config, keep_answers=keep_answers)

    def _go_on(self, config: RunConfig | None, *, keep_answers: bool) -> int:
        state = self._state()
        again = config is not None and self.is_out_of_budget
        if state is None or (state.finished and not again):
            raise ConfigError(f"{self.name!r} is finished, {self.what_is_left}")
        self._refuse_changed()
        self._claim()
        # A line without an end is of an iteration that was not finished. What an earlier resumed
        # run had finished stays so, even where this one is cut short before it.
        n_done = max(state.n_done, self._n_lines())
        if config is not None:
            state = replace(state, config=config.model_dump(mode="json"))
        state = replace(state, n_done=n_done, finished=False)
        with writing(self.path):
            self._keep_answers(keep_answers)
            if again:
                self._set_aside()
                for name in GONE_ON_WITH:
                    shutil.copy2(self._previous / name, self.path / name)
        self._write_state(state)
        with writing(self.path):
            shutil.rmtree(self.bundle, ignore_errors=True)
            for name in RESULTS:
                (self.path / name).unlink(missing_ok=True)
        if config is not None:
            self.write_config(config)
        self._write("iterations.jsonl", "")
        return n_done

    def _refuse_changed(self) -> None:
        """Its rows are no longer those that its rounds were about, and the ledger knows it not."""
        if self._change is not None:
            raise ConfigError(
                f"{self.name!r} cannot be gone on with: its labels were changed since "
                f"({self._change}); {self._way_back}, or train anew with --overwrite"
            )

    @property
    def _change(self) -> str | None:
        """What the last change of its labels was, if any stands."""
        facts = read_provenance(self.bundle)
        return str(facts.get("change", "")) if "labels_changed" in facts else None

    @property
    def _way_back(self) -> str:
        return f"go back first, change by change, with `red-ray label undo {self.name}`"

    def _n_lines(self) -> int:
        return self._read("iterations.jsonl").count("\n")

    @property
    def is_out_of_budget(self) -> bool:
        """Whether it is finished, and its budget was what stopped the loop."""
        state = self._state()
        if state is None or not state.finished or not (self.path / "details.json").exists():
            return False
        return bool(self.read_json("details.json").get("stop_reason") == "budget")

    @property
    def what_is_left(self) -> str:
        """Of a finished run: what can still be done with it."""
        if self.is_out_of_budget and self._change is not None:
            return (
                "and its budget stopped it, but its labels were changed since: to go on with "
                f"another budget, {self._way_back}"
            )
        if self.is_out_of_budget:
            return (
                f"and its budget stopped it: `red-ray resume {self.name} --set "
                "judge.budget_calls=…` goes on with another one"
            )
        return "nothing is left to do; to train anew run `red-ray train` with --overwrite"

    @property
    def begun_with(self) -> dict[str, Any] | None:
        """The configuration that it was begun with; None of runs that did not keep it."""
        state = self._state()
        return None if state is None else state.config

    @property
    def run_id(self) -> str:
        """Names the run in the ledger; empty where there is none."""
        state = self._state()
        return "" if state is None else state.id

    @property
    def is_cut_short(self) -> bool:
        """Whether a run was begun here and not finished."""
        state = self._state()
        return state is not None and not state.finished

    @property
    def is_finished(self) -> bool:
        """Whether a run was begun here and finished."""
        state = self._state()
        return state is not None and state.finished

    @property
    def is_resumable(self) -> bool:
        """Whether `resume` has something to go on with."""
        return self.is_cut_short and (self.path / "inputs.parquet").exists()

    def finish(self) -> None:
        """Say that nothing is left to do."""
        state = self._state() or _State("")
        self._write_state(replace(state, finished=True, n_done=self._n_lines()))

    def _state(self) -> _State | None:
        if not (self.path / STATE).exists():
            return None
        with _parsing(self.path / STATE):
            return _State(**json.loads(self._read(STATE)))

    def _write_state(self, state: _State) -> None:
        self._write(STATE, json.dumps(asdict(state)) + "\n")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the run meanwhile; what is read here, stays true.

        No file at an address can be locked: see `claim`.

        Raises:
            OutputError: one does already; or the run is at an address, and perhaps in training.
        """
        if self.is_copy:
            self.refuse_unfinished()
        self._hold()
        try:
            yield
        finally:
            self._release()

    def refuse_unfinished(self) -> None:
        """Leave a run alone that was begun and not finished: `resume` starts from its rows.

        Raises:
            OutputError: it is one.
        """
        if self.is_cut_short:
            raise OutputError(
                f"{self.name!r} is being trained, or its training was cut short: wait for it, or "
                f"finish it with `red-ray resume {self.name}`"
            )

    def claim(self) -> None:
        """Be the one that writes at the run's address from now on, where it has one.

        Raises:
            OutputError: another process wrote there since it was read.
        """
        if self._copy is not None:
            self._copy.claim(unchanged=True)

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Take the lock, and give it back where what follows fails."""
        self._hold()
        try:
            yield
        except BaseException:
            self._release()
            raise

    def _hold(self) -> None:
        """Keep other processes from writing here, until this one ends, however it ends.

        What a killed change of labels left is put in place first: a later one would find it and
        put it over what is written now.
        """
        self._lock_it()
        try:
            settle(self.path)
        except BaseException:
            self._release()
            raise

    def _lock_it(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                self._release()
                raise OutputError(
                    f"another process is training in {self.name!r}, changes it or scores it; wait "
                    "for it, or stop it"
                ) from error

    def _claim(self) -> None:
        """Take over the run's address, once it is known that this one may."""
        if self._copy is not None:
            self._copy.claim()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Put the finished run that stood here before back, should the new one fail."""
        try:
            yield
        except BaseException:
            self.was_put_back = self._put_back()
            raise
        else:
            shutil.rmtree(self._previous, ignore_errors=True)
        finally:
            self._release()

    def _set_aside(self) -> None:
        shutil.rmtree(self._previous, ignore_errors=True)
        if not (self.bundle / MANIFEST).exists():
            for name in (*RESULTS, TESTED, CROSSFIT):  # of a run that was cut short: nobody's
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / ENCODERS, ignore_errors=True)
            return
        self._previous.mkdir()
        for name in (*RESULTS, *OF_A_RUN):
            if (self.path / name).exists():
                (self.path / name).rename(self._previous / name)

    def _put_back(self) -> bool:
        if not (self._previous / "bundle").exists():
            return False
        shutil.rmtree(self.bundle, ignore_errors=True)
        for name in (*RESULTS, *OF_A_RUN):
            if (self._previous / name).exists():
                if (self.path / name).is_dir():  # of the run that failed
                    shutil.rmtree(self.path / name)
                (self._previous / name).replace(self.path / name)
        self._previous.rmdir()
        return True

    @property
    def _previous(self) -> Path:
        return self.path / ".previous"

    @classmethod
    def settled(cls, place: Place) -> RunFolder:
        """A folder in which no change of labels is left in the middle; perhaps no finished run.

        Raises:
            OutputError: it cannot be written.
        """
        run = cls(place)
        if (run.path / PENDING).is_dir():
            run._hold()
            run._release()
        return run

    @classmethod
    def open(cls, place: Place) -> RunFolder:
        """Open a finished run.

        Raises:
            DataError: it is none.
        """
        run = cls.settled(place)
        if not (run.bundle / MANIFEST).exists():
            raise DataError(f"{run.name!r} is no finished run: it has no bundle/{MANIFEST}")
        return run

    def shown(self, path: Path) -> str:
        """One of the run's files, for messages: as it is found at the run's address."""
        if self._copy is None:
            return str(path)
        return f"{self.name}/{path.relative_to(self.path).as_posix()}"

    @property
    def short_name(self) -> str:
        """The folder's, or the last part of its address: what metrics and logs call it."""
        return self.name.rpartition("/")[2] if self.is_copy else self.path.resolve().name

    @property
    def is_copy(self) -> bool:
        """Whether the run is at an address, and this a copy of it."""
        return self._copy is not None

    def save(self) -> None:
        """Copy what changed to the run's address, where it has one.

        Raises:
            OutputError: another process writes there, or it is denied.
            StorageError: it cannot be reached.
        """
        if self._copy is not None:
            self._copy.push()

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration."""
        self._write("config.yaml", dump_config(config))

    def append(self, iteration: Iteration) -> None:
        """Add an iteration to the history; where its address is away, that is copied later.

        Raises:
            OutputError: it cannot be written, or another process writes at its address.
            StorageError: the disk is full.
        """
        path = self.path / "iterations.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(iteration)) + "\n")
        try:
            self.save()
        except StorageError as error:  # the next one takes it along; verdicts are elsewhere
            logger.warning("run not copied: %s", error)

    def iterations(self) -> list[Iteration]:
        """The loop's history; empty without a judge."""
        with _parsing(self.path / "iterations.jsonl"):
            lines = self._read("iterations.jsonl").splitlines()
            return [_iteration(json.loads(line)) for line in lines]

    def write_paraphrases(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write what the judge wrote, one JSON object a line."""
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._write(PARAPHRASES, encodable("".join(lines)))

    def write_seen(self, keys: Iterable[str]) -> None:
        """Keep the keys of the texts that training saw."""
        self._write("seen.txt", "".join(f"{key}\n" for key in sorted(keys)))

    def seen(self) -> frozenset[str]:
        """Keys of the texts that training saw."""
        return frozenset(self._read("seen.txt").split())

    def add_tested(self, keys: Iterable[str]) -> None:
        """Keep the keys of texts that a scorecard was made of, beside those of earlier ones."""
        keys = self.tested().union(keys)
        self._write(TESTED, "".join(f"{key}\n" for key in sorted(keys)))

    def tested(self) -> frozenset[str]:
        """Keys of the texts that `evaluate` scored; empty before the first."""
        if not (self.path / TESTED).exists():
            return frozenset()
        return frozenset(self._read(TESTED).split())

    def drop_scorecard(self, details: Iterable[str]) -> bool:
        """Remove `scorecard.json` and what goes with it; whether there was one.

        Args:
            details: keys of `details.json` that tell of the test rows.
        """
        path = self.path / "scorecard.json"
        if not path.exists():
            return False
        gone = frozenset(details)
        kept = {k: v for k, v in self.read_json("details.json").items() if k not in gone}
        self.write_json("details.json", kept)
        with writing(path):
            path.unlink()
        return True

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write `scorecard.json` or `details.json`."""
        self._write(name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read `scorecard.json` or `details.json`."""
        with _parsing(self.path / name):
            return dict(json.loads(self._read(name)))

    def _is_foreign(self) -> bool:
        # People's answers may be imported before the first run.
        known = (LOCK, self.ledger.name)
        others = [one for one in self.path.iterdir() if not one.name.startswith(known)]
        ours = (self.path / "config.yaml", self._previous)
        return bool(others) and not any(path.exists() for path in ours)

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot read {str(self.path / name)!r}: {error.strerror}") from error

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{name}.new")
            new.write_text(text, encoding="utf-8")
            new.replace(path)


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{str(path)!r} is damaged: {error}; run the training again with --overwrite"
        ) from error


def _iteration(data: dict[str, Any]) -> Iteration:
    return Iteration(**{**data, "experts_refitted": tuple(data["experts_refitted"])})
