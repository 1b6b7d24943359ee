"""Every verdict ever paid for: looked up before a question is asked, stored before it is used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from red_ray.errors import OutputError, StorageError
from red_ray.judges.ledger import lease as leases
from red_ray.judges.ledger import schema
from red_ray.judges.ledger.database import is_url, open_database, reason, shown
from red_ray.judges.ledger.entries import (
    UNKNOWN,
    HumanVerdict,
    Kept,
    Received,
    Record,
    RequestCounts,
    Review,
    Sent,
    Spent,
    Unsent,
)
from red_ray.judges.ledger.lease import Lease
from red_ray.judges.ledger.reserve import Reserve
from red_ray.judges.ledger.schema import ANSWERS, FAILURES, HUMANS, REQUESTS, REVIEWS, VERDICTS
from red_ray.types import WRITING, Outcome, Verdict

Entry = Sent | Unsent | Received | Kept
_Rows = list[dict[str, Any]]

# Made once: to put them together takes longer than the database needs.
_KEYS: sa.BindParameter[str] = sa.bindparam("keys", expanding=True)
_VERDICTS_OF = sa.select(VERDICTS).where(VERDICTS.c.key.in_(_KEYS))
_FAILURES_OF = sa.select(FAILURES).where(
    FAILURES.c.asked_in == sa.bindparam("asked_in"), FAILURES.c.key.in_(_KEYS)
)
_KEYS_PER_QUERY = 500  # SQLite builds before 3.32 take 999 variables at most
_ROWS_AT_ONCE = 1000

MAX_REVIEWS = 10_000
"""Texts that wait for a person: more of them nobody works off, and a flood fills no disk."""

# A "no" to a single candidate is no answer: it leaves all others.
_UNANSWERED = sa.and_(
    ~sa.exists().where(HUMANS.c.text_key == REVIEWS.c.text_key),
    ~sa.exists().where(
        VERDICTS.c.text_key == REVIEWS.c.text_key,
        VERDICTS.c.created_at >= REVIEWS.c.created_at,
        sa.or_(
            sa.and_(VERDICTS.c.outcome == Outcome.LABEL.value, VERDICTS.c.mode.not_in(WRITING)),
            sa.and_(VERDICTS.c.outcome == Outcome.NONE.value, VERDICTS.c.mode == "choose"),
        ),
    ),
)


def utc_now() -> datetime:
    """The system's time, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """Requests, verdicts of judges and of people; an SQLite file or a PostgreSQL database.

    A label and a *none* are answers: `get_many` gives them back for the same question, and no
    later verdict replaces them. A failed outcome is kept for what it cost and may be asked
    again; then its row takes the new outcome and the sum of what was spent. Within the round
    that it came of it is given back too, so that a run that is resumed goes the same way.

    Texts that wait for a person stand here as well, so that all who ask over one ledger share them.

    Not bound to a thread, but blocking: async code calls it through an executor.

    Args:
        place: a file, or a URL `postgresql://user@host/database`, without a password.
        now: the time that rows are stamped with, in UTC.

    Raises:
        ConfigError: the URL cannot be used, or its driver is not installed.
        OutputError: the file or the database cannot be opened, or an older version wrote it.
    """

    def __init__(self, place: str | Path, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._engine = open_database(place)
        # Look-ups need no transaction: on a server its begin and end cost more than they do.
        self._look_ups = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._where = shown(self._engine)
        self._path = None if is_url(place) else Path(place)
        self._reserve = Reserve(self._path) if self._path else None
        self._statements = schema.Statements(self._engine.dialect.name)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write in one commit, all or none; it is on disk when this returns.

        Once the disk was full no request is taken any more, while answers still are: a reserve
        beside the file makes room for them.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        sends = any(isinstance(entry, Sent) for entry in entries)
        if self._reserve and sends:
            self._reserve.hold()
            if self._reserve.given_up:
                raise self._failed("its disk is full, and what was paid for is kept")
        batches = self._batches(entries)
        with self._translated():
            try:
                self._commit(batches)
            except DBAPIError as error:
                if self._reserve is None or not self._reserve.give_up_for(error):
                    raise
                self._commit(batches)

    def get_many(
        self, keys: Sequence[str], *, asked_in: str = "", replay: bool = True
    ) -> dict[str, Verdict]:
        """What is known for `keys`, in their order.

        Args:
            keys: of the questions.
            asked_in: the round that asks. What this very round bought comes back as it was; any
                other answer with 0 requests and at no cost.
            replay: whether what failed in this round, and was not answered in it, comes back too;
                an answer that could not be read was paid for, and always does.

        Raises:
            StorageError: the ledger cannot be read.
        """
        found: dict[str, Verdict] = {}
        with self._translated(), self._look_ups.connect() as connection:
            for chunk in _chunks(keys):
                answers = _answers(connection, chunk, asked_in)
                found |= answers
                failed = _failures(connection, chunk, asked_in) if asked_in else {}
                for key, one in failed.items():
                    is_final = replay or one.outcome is Outcome.UNREADABLE
                    if is_final and not _is_own(answers.get(key)):
                        found[key] = one
        return {key: found[key] for key in keys if key in found}

    def add_humans(self, verdicts: Iterable[HumanVerdict]) -> int:
        """Store what people said, in one commit; a later word replaces an earlier one.

        Returns:
            How many said something new.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        rows = [schema.human_row(verdict, self._now()) for verdict in verdicts]
        return self._count_changed(self._statements.human, rows)

    def add_records(self, records: Iterable[Record]) -> int:
        """Store the verdicts of another ledger, in one commit; answers that are there stay.

        Returns:
            How many brought something new.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        rows = [schema.verdict_row(record) for record in records]
        return self._count_changed(self._statements.imported, rows)

    def humans_of(self, texts: Sequence[str]) -> dict[str, str | None]:
        """The label that a person gave, by text; None where none fits, no key where nobody did.

        Raises:
            StorageError: the ledger cannot be read.
        """
        keys = {text: schema.stored_text_key(text) for text in texts}
        found: dict[str, str | None] = {}
        with self._translated(), self._look_ups.connect() as connection:
            for chunk in _chunks(list(keys.values())):
                query = sa.select(HUMANS.c.text_key, HUMANS.c.label)
                rows = connection.execute(query.where(HUMANS.c.text_key.in_(chunk)))
                found.update((key, label) for key, label in rows)
        return {text: found[key] for text, key in keys.items() if key in found}

    def humans(self) -> Iterator[HumanVerdict]:
        """What people said, in the order of the texts' keys.

        Raises:
            StorageError: the ledger cannot be read.
        """
        for row in self._stream(sa.select(HUMANS).order_by(HUMANS.c.text_key)):
            yield HumanVerdict(row["text"], row["label"], row["created_at"])

    def add_reviews(self, reviews: Iterable[Review]) -> None:
        """Let texts wait for a person, in one commit; of a text the newest word stands.

        The oldest beyond `MAX_REVIEWS` go.

        Raises:
            StorageError: the disk is full or the ledger went away.
        """
        rows = [schema.review_row(review, self._now()) for review in reviews]
        # In one order everywhere: two that write the same keys would wait for each other.
        rows.sort(key=lambda row: (row["text_key"], row["created_at"]))
        with self._translated():
            self._commit([(self._statements.review, rows)] if rows else [])
            self._forget_oldest_reviews()

    def open_reviews(self, limit: int) -> list[Review]:
        """Texts that wait for a person, the newest first.

        One that a person has answered waits no longer, nor one that a judge answered since.

        Raises:
            StorageError: the ledger cannot be read.
        """
        newest = (REVIEWS.c.created_at.desc(), REVIEWS.c.text_key)
        query = sa.select(REVIEWS).where(_UNANSWERED).order_by(*newest)
        with self._connection() as connection:
            rows = connection.execute(query.limit(limit)).mappings()
            return [schema.review_of(row) for row in rows]

    def n_open_reviews(self) -> int:
        """How many `open_reviews` there are.

        Raises:
            StorageError: the ledger cannot be read.
        """
        query = sa.select(sa.func.count()).select_from(REVIEWS).where(_UNANSWERED)
        with self._connection() as connection:
            return int(connection.scalar(query) or 0)

    def verdicts(self) -> Iterator[Verdict]:
        """All verdicts of judges, failed outcomes included, in the order of their keys.

        Raises:
            StorageError: the ledger cannot be read.
        """
        for row in self._stream(sa.select(VERDICTS).order_by(VERDICTS.c.key)):
            yield _verdict(row)

    def records(self) -> Iterator[Record]:
        """All verdicts of judges with what stands beside them; those on one text in a row.

        Raises:
            StorageError: the ledger cannot be read.
        """
        query = sa.select(VERDICTS).order_by(VERDICTS.c.text_key, VERDICTS.c.key)
        return (schema.record_of(row) for row in self._stream(query))

    def labels(self) -> frozenset[str]:
        """Every label that was a candidate.

        Raises:
            StorageError: the ledger cannot be read.
        """
        rows = self._stream(sa.select(VERDICTS.c.candidates))
        return frozenset(label for row in rows for label in row["candidates"])

    def spent(self, judge: str) -> Spent:
        """What all requests to a judge have cost.

        Raises:
            StorageError: the ledger cannot be read.
        """
        counts = self._request_counts(REQUESTS.c.judge == judge).get(judge)
        if counts is None:
            return Spent(0, 0, 0.0)
        return Spent(counts.requests, counts.tokens, counts.cost_usd or 0.0)

    def longest_answer(self, judge: str) -> int:
        """Tokens of the longest answer that a judge gave.

        Raises:
            StorageError: the ledger cannot be read.
        """
        query = sa.select(sa.func.max(REQUESTS.c.completion_tokens))
        with self._connection() as connection:
            return int(connection.scalar(query.where(REQUESTS.c.judge == judge)) or 0)

    def sends_since(self, judge: str, since: datetime) -> list[tuple[datetime, int]]:
        """When requests to a judge left, and their tokens, from `since` on.

        Raises:
            StorageError: the ledger cannot be read.
        """
        query = (
            sa.select(REQUESTS.c.sent_at, REQUESTS.c.tokens)
            .where(REQUESTS.c.judge == judge, REQUESTS.c.sent_at >= since)
            .order_by(REQUESTS.c.sent_at)
        )
        with self._connection() as connection:
            return [(sent_at, tokens) for sent_at, tokens in connection.execute(query)]

    def requests_of(self, run: str) -> RequestCounts:
        """The requests of all rounds of a run: whose `asked_in` begins with `run` and a slash.

        Raises:
            StorageError: the ledger cannot be read.
        """
        begin = f"{run}/"
        # Not LIKE, which takes upper and lower case for the same in SQLite.
        mine = sa.func.substr(REQUESTS.c.asked_in, 1, len(begin)) == begin
        return _summed(self._request_counts(mine).values())

    def requests_by_judge(self) -> dict[str, RequestCounts]:
        """All requests, by judge.

        Raises:
            StorageError: the ledger cannot be read.
        """
        return self._request_counts(sa.true())

    def outcomes_by_judge(self) -> dict[str, dict[str, int]]:
        """How many verdicts of each outcome stand, by judge.

        Raises:
            StorageError: the ledger cannot be read.
        """
        columns = (VERDICTS.c.judge, VERDICTS.c.outcome)
        query = sa.select(*columns, sa.func.count()).group_by(*columns).order_by(*columns)
        found: dict[str, dict[str, int]] = {}
        with self._connection() as connection:
            for judge, outcome, n_verdicts in connection.execute(query):
                found.setdefault(judge, {})[outcome] = n_verdicts
        return found

    def latencies_ms(self, judge: str) -> list[float]:
        """Of all requests to a judge of which it is known what came, failed ones included.

        Raises:
            StorageError: the ledger cannot be read.
        """
        mine = (REQUESTS.c.judge == judge, REQUESTS.c.latency_ms.is_not(None))
        with self._connection() as connection:
            return list(connection.scalars(sa.select(REQUESTS.c.latency_ms).where(*mine)))

    def lease(
        self, judge: str, *, wait_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
    ) -> Lease:
        """Take the right to ask a judge over this ledger, which one process has at a time.

        A process that is killed gives it back. In a file, leases of one process do not exclude
        each other; on a server they do.

        Args:
            judge: its name.
            wait_s: how long to wait for it; looked for again every 0.1 s.
            sleep: waits.

        Raises:
            OutputError: another process has it.
            StorageError: it cannot be told.
        """
        waited_s = 0.0
        while (lease := self._try_lease(judge)) is None:
            if waited_s >= wait_s:
                raise OutputError(
                    f"another process asks the judge {judge!r} over the ledger {self._where!r}; "
                    "wait until it ends, or stop it"
                )
            sleep(leases.POLL_S)
            waited_s += leases.POLL_S
        return lease

    def close(self) -> None:
        """Close the database; may be called twice."""
        if self._reserve:
            self._reserve.release()
        self._engine.dispose()

    def _try_lease(self, judge: str) -> Lease | None:
        if self._path is None:
            with self._translated():
                return leases.lease_on_server(self._engine, judge)
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            return leases.lease_file(lock, judge)
        except OSError as error:
            raise OutputError(f"cannot lock {str(lock)!r}: {error.strerror}") from error

    def _batches(self, entries: Sequence[Entry]) -> list[tuple[Any, _Rows]]:
        now = self._now()
        kept = [entry for entry in entries if isinstance(entry, Kept)]
        # In one order everywhere: two that write the same keys would wait for each other.
        kept.sort(key=lambda one: one.verdict.key)
        failed = [one for one in kept if one.asked_in and one.verdict.outcome not in ANSWERS]
        batches: list[tuple[Any, _Rows]] = [
            (self._statements.sent, [schema.sent_row(e) for e in entries if isinstance(e, Sent)]),
            (
                self._statements.received,
                [schema.received_row(e) for e in entries if isinstance(e, Received)],
            ),
            (self._statements.unsent, [{"own_id": e.id} for e in entries if isinstance(e, Unsent)]),
            (self._statements.kept, [schema.kept_row(one, now) for one in kept]),
            (self._statements.failed, [schema.failed_row(one) for one in failed]),
        ]
        return [(statement, rows) for statement, rows in batches if rows]

    def _commit(self, batches: list[tuple[Any, _Rows]]) -> None:
        if not batches:
            return
        with self._engine.begin() as connection:
            for statement, rows in batches:
                connection.execute(statement, rows)

    def _forget_oldest_reviews(self) -> None:
        columns = (REVIEWS.c.text_key, REVIEWS.c.created_at)
        newest = sa.select(*columns).order_by(*(column.desc() for column in columns[::-1]))
        with self._engine.begin() as connection:
            old = connection.execute(newest.offset(MAX_REVIEWS)).all()
            rows = [{"own_key": key, "told_at": at} for key, at in sorted(old)]
            if rows:
                connection.execute(self._statements.outdated, rows)

    def _count_changed(self, statement: Any, rows: _Rows) -> int:
        if not rows:
            return 0
        with self._translated(), self._engine.begin() as connection:
            counting = connection.execution_options(preserve_rowcount=True)
            return counting.execute(statement, rows).rowcount

    def _request_counts(self, where: sa.ColumnElement[bool]) -> dict[str, RequestCounts]:
        columns = (REQUESTS.c.judge, REQUESTS.c.result)
        sums = (sa.func.sum(REQUESTS.c.tokens), sa.func.sum(REQUESTS.c.cost_usd))
        query = sa.select(*columns, sa.func.count(), *sums).where(where).group_by(*columns)
        found: dict[str, list[RequestCounts]] = {}
        with self._connection() as connection:
            for judge, result, n_requests, tokens, cost_usd in connection.execute(query):
                counts = RequestCounts({result or UNKNOWN: n_requests}, int(tokens), cost_usd)
                found.setdefault(judge, []).append(counts)
        return {judge: _summed(found[judge]) for judge in sorted(found)}

    def _stream(self, query: sa.Select[Any]) -> Iterator[sa.RowMapping]:
        with self._connection() as connection:
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            yield from streamed.execute(query).mappings()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # Without its cause: PostgreSQL quotes the row that failed, and with it a user's text.
            raise self._failed(reason(error)) from None

    def _failed(self, why: str) -> StorageError:
        return StorageError(
            f"the ledger {self._where!r} failed: {why}; "
            "free some space or mend the database, then run the same command again"
        )


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]


def _failures(connection: sa.Connection, keys: Sequence[str], asked_in: str) -> dict[str, Verdict]:
    rows = connection.execute(_FAILURES_OF, {"keys": keys, "asked_in": asked_in}).mappings()
    return {row["key"]: _verdict({**row, "label": None}) for row in rows}


def _answers(connection: sa.Connection, keys: Sequence[str], asked_in: str) -> dict[str, Verdict]:
    rows = connection.execute(_VERDICTS_OF, {"keys": keys}).mappings()
    return {row["key"]: _known(row, asked_in) for row in rows if row["outcome"] in ANSWERS}


def _is_own(answer: Verdict | None) -> bool:
    """Whether the round that asks has bought it: to any other it made no request."""
    return answer is not None and answer.requests > 0


def _known(row: sa.RowMapping, asked_in: str) -> Verdict:
    """An answer as the round that bought it saw it; to any other it is free."""
    if not asked_in or row["asked_in"] != asked_in:
        return _verdict({**row, "requests": 0, "cost_usd": 0.0})
    spent = ("requests", "prompt_tokens", "completion_tokens", "cost_usd")
    return _verdict({**row, **{name: row[f"own_{name}"] for name in spent}})


def _verdict(row: Any) -> Verdict:
    columns = {name: row[name] for name in Verdict.__dataclass_fields__}
    return Verdict(**columns | {"outcome": Outcome(row["outcome"])})


def _summed(counts: Iterable[RequestCounts]) -> RequestCounts:
    results: dict[str, int] = {}
    tokens, cost_usd = 0, None
    for one in counts:
        for result, n_requests in one.results.items():
            results[result] = results.get(result, 0) + n_requests
        tokens += one.tokens
        if one.cost_usd is not None:
            cost_usd = (cost_usd or 0.0) + one.cost_usd
    return RequestCounts(dict(sorted(results.items())), tokens, cost_usd)
