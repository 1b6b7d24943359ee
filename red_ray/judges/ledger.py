"""Every verdict ever paid for: looked up before a question is asked, stored before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from red_ray.errors import ConfigError, OutputError, StorageError
from red_ray.judges.prompts import PROMPT_VERSION
from red_ray.types import Outcome, Question, Verdict

_TABLE = sa.Table(
    "verdicts",
    sa.MetaData(),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("candidates", sa.JSON, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("judge", sa.Text, nullable=False),
    sa.Column("prompt_version", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)
_SPENT = ("requests", "prompt_tokens", "completion_tokens")
_RESULT = ("outcome", "label", "latency_ms", "error", "created_at")
_ANSWERS = (Outcome.LABEL.value, Outcome.NONE.value)
_KEYS_PER_QUERY = 500  # SQLite builds before 3.32 take 999 variables at most
_BUSY_TIMEOUT_S = 30.0  # another process may hold the file for the length of one commit


def utc_now() -> datetime:
    """The system's time, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """The verdicts of all judges in one table; SQLite file or PostgreSQL.

    A label and a *none* are answers: `get_many` gives them back for the same question, and no
    later verdict replaces them. A failed outcome is kept for what it cost and may be asked
    again; then its row takes the new outcome and the sum of the requests and tokens.

    Not bound to a thread, but blocking: async code calls it through an executor.

    Args:
        place: a file, or an SQLAlchemy URL (`postgresql://…`).
        now: the time that rows are stamped with, in UTC.

    Raises:
        ConfigError: the URL names no database that is supported.
        OutputError: the file or the database cannot be opened.
    """

    def __init__(self, place: str | Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._engine = _engine(place)
        self._where = self._engine.url.render_as_string(hide_password=True)
        self._upsert = _upsert(self._engine.dialect.name)
        try:
            _TABLE.metadata.create_all(self._engine)
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise OutputError(
                f"cannot open the ledger {self._where!r}: {_reason(error)}"
            ) from error

    def get_many(self, keys: Sequence[str]) -> dict[str, Verdict]:
        """The answers that are known for `keys`, with 0 requests; failed outcomes are not.

        Raises:
            StorageError: the ledger cannot be read.
        """
        found: dict[str, Verdict] = {}
        with self._connection() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                chunk = keys[start : start + _KEYS_PER_QUERY]
                query = sa.select(_TABLE).where(
                    _TABLE.c.key.in_(chunk), _TABLE.c.outcome.in_(_ANSWERS)
                )
                rows = connection.execute(query).mappings()
                found.update((row["key"], _verdict(row, requests=0)) for row in rows)
        return found

    def add(self, verdict: Verdict, question: Question) -> None:
        """Store a verdict; it is committed when this returns.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        self.add_many([(verdict, question)])

    def add_many(self, items: Iterable[tuple[Verdict, Question]]) -> None:
        """Store verdicts in one commit: all of them or none.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        rows = [_row(verdict, question, self._now()) for verdict, question in items]
        if not rows:
            return
        with self._connection() as connection:
            connection.execute(self._upsert, rows)
            connection.commit()

    def count_requests(self) -> int:
        """Requests made over the ledger's life, retries and failures included.

        Raises:
            StorageError: the ledger cannot be read.
        """
        with self._connection() as connection:
            return int(connection.scalar(sa.select(sa.func.sum(_TABLE.c.requests))) or 0)

    def verdicts(self) -> Iterator[Verdict]:
        """All rows, failed outcomes included, in the order of their keys.

        Raises:
            StorageError: the ledger cannot be read.
        """
        with self._connection() as connection:
            streamed = connection.execution_options(yield_per=1000)
            for row in streamed.execute(sa.select(_TABLE).order_by(_TABLE.c.key)).mappings():
                yield _verdict(row, requests=row["requests"])

    def close(self) -> None:
        """Close the database; may be called twice."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StorageError(
                f"the ledger {self._where!r} failed: {_reason(error)}; "
                "free some space or mend the database, then run the same command again"
            ) from error


def _engine(place: str | Path) -> sa.Engine:
    if isinstance(place, str) and "://" in place:
        return _server_engine(place)
    path = Path(place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(path.parent)!r}: {error}") from error
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        hide_parameters=True,  # an error must not quote a user's text
        connect_args={"timeout": _BUSY_TIMEOUT_S},
    )
    sa.event.listen(engine, "connect", _set_pragmas)
    return engine


def _server_engine(url: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"the ledger's URL cannot be used: {type(error).__name__}") from error
    if engine.dialect.name != "postgresql":
        name = engine.dialect.name
        raise ConfigError(
            f"a ledger by URL must be postgresql://, got {name!r}; give SQLite a path"
        )
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # Waits for the disk, so that a power cut takes no verdict that was paid for. Measured on
    # ext4: 0.15 ms a commit, 0.09 with NORMAL; a judge takes a thousand times as long.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _upsert(dialect: str) -> Any:
    """Insert; on a known key add up what was spent and keep the outcome if it is an answer."""
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(_TABLE)
    # Not IN: a statement for many rows takes no expanding parameter.
    answered = sa.or_(*(_TABLE.c.outcome == answer for answer in _ANSWERS))
    changed: dict[str, Any] = {}
    for name in _SPENT:
        changed[name] = _TABLE.c[name] + insert.excluded[name]
    for name in _RESULT:
        changed[name] = sa.case((answered, _TABLE.c[name]), else_=insert.excluded[name])
    return insert.on_conflict_do_update(index_elements=[_TABLE.c.key], set_=changed)


def _row(verdict: Verdict, question: Question, now: datetime) -> dict[str, Any]:
    return {
        "key": verdict.key,
        "text": _storable(question.text),
        "candidates": [candidate.label for candidate in question.candidates],
        "mode": question.mode,
        "judge": verdict.judge,
        "prompt_version": PROMPT_VERSION,
        "outcome": verdict.outcome.value,
        "label": verdict.label,
        "requests": verdict.requests,
        "latency_ms": verdict.latency_ms,
        "prompt_tokens": verdict.prompt_tokens,
        "completion_tokens": verdict.completion_tokens,
        "error": verdict.error,
        "created_at": now,
    }


def _storable(text: str) -> str:
    """Without what no database takes: lone surrogates. The key keeps such texts apart."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _verdict(row: sa.RowMapping, *, requests: int) -> Verdict:
    return Verdict(
        key=row["key"],
        outcome=Outcome(row["outcome"]),
        label=row["label"],
        judge=row["judge"],
        requests=requests,
        latency_ms=row["latency_ms"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        error=row["error"],
    )


def _reason(error: SQLAlchemyError) -> str:
    """What the driver said, in one line."""
    return " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
