"""The ledger's tables, and what is written to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from red_ray.core.text import text_key
from red_ray.judges.ledger.entries import HumanVerdict, Kept, Received, Record, Review, Sent
from red_ray.judges.prompts import PROMPT_VERSION
from red_ray.types import Outcome

ANSWERS = (Outcome.LABEL.value, Outcome.NONE.value)


class _Words(sa.TypeDecorator[str]):
    """Text without what no database takes: lone surrogates and NUL. The keys keep texts apart."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        return None if value is None else storable(value)


class _Moment(sa.TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = sa.MetaData()

# `requests`, tokens and cost are of all failed tries and the one that stands; the `own_` ones are
# of the one that stands, so that a round can be replayed as it was.
VERDICTS = sa.Table(
    "verdicts",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text_key", sa.String(64), nullable=False),
    sa.Column("text", _Words, nullable=False),
    sa.Column("candidates", sa.JSON, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("judge", _Words, nullable=False),
    sa.Column("prompt_version", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("label", _Words),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("latency_ms", sa.Double, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Double),
    sa.Column("own_requests", sa.BigInteger, nullable=False),
    sa.Column("own_prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("own_completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("own_cost_usd", sa.Double),
    sa.Column("error", _Words, nullable=False),
    sa.Column("version", _Words, nullable=False),
    sa.Column("asked_in", _Words, nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Index("verdicts_by_text", "text_key"),
)

REQUESTS = sa.Table(
    "requests",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("judge", _Words, nullable=False),
    sa.Column("asked_in", _Words, nullable=False),
    sa.Column("sent_at", _Moment, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Double),
    sa.Column("result", _Words),
    sa.Column("latency_ms", sa.Double),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("completion_tokens", sa.BigInteger),
    sa.Index("requests_by_judge", "judge", "sent_at"),
)

FAILURES = sa.Table(
    "failures",
    METADATA,
    sa.Column("asked_in", _Words, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("judge", _Words, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("latency_ms", sa.Double, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Double),
    sa.Column("error", _Words, nullable=False),
    sa.Column("version", _Words, nullable=False),
)

HUMANS = sa.Table(
    "humans",
    METADATA,
    sa.Column("text_key", sa.String(64), primary_key=True),
    sa.Column("text", _Words, nullable=False),
    sa.Column("label", _Words),
    sa.Column("created_at", _Moment, nullable=False),
)

REVIEWS = sa.Table(
    "reviews",
    METADATA,
    sa.Column("text_key", sa.String(64), primary_key=True),
    sa.Column("text", _Words, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("candidates", sa.JSON, nullable=False),
    sa.Column("note", _Words, nullable=False),
    sa.Column("bundle", sa.Text, nullable=False),
    sa.Column("created_at", _Moment, nullable=False),
    sa.Index("reviews_by_time", "created_at", "text_key"),
)

_SPENT = ("requests", "prompt_tokens", "completion_tokens", "cost_usd")
_STANDS = (
    *(f"own_{name}" for name in _SPENT),
    *("outcome", "label", "latency_ms", "error", "version", "asked_in", "created_at"),
)


class Statements:
    """What is written, in the dialect of one database; each takes any number of rows."""

    def __init__(self, dialect: str) -> None:
        self._insert = (postgresql if dialect == "postgresql" else sqlite).insert
        self.sent = sa.insert(REQUESTS)
        self.unsent = sa.delete(REQUESTS).where(REQUESTS.c.id == sa.bindparam("own_id"))
        self.received = _correct_request()
        self.kept = self._verdict(wins=None)
        self.failed = self._insert(FAILURES).on_conflict_do_nothing()
        self.human = self._human()
        self.review = self._review()
        self.outdated = sa.delete(REVIEWS).where(
            REVIEWS.c.text_key == sa.bindparam("own_key"),
            REVIEWS.c.created_at == sa.bindparam("told_at"),  # it may have a newer word by now
        )
        answers = (self._insert(VERDICTS).excluded.outcome == answer for answer in ANSWERS)
        self.imported = self._verdict(wins=sa.and_(~_answered(), sa.or_(*answers)))

    def _verdict(self, wins: Any) -> Any:
        """Insert; on a known key add up what was spent and keep the outcome if it is an answer.

        `wins`: when a row touches a known one at all; None is always.
        """
        insert = self._insert(VERDICTS)
        changed: dict[str, Any] = {}
        for name in _SPENT:
            old, new = VERDICTS.c[name], insert.excluded[name]
            changed[name] = sa.func.coalesce(old + new, old, new)
        for name in _STANDS:
            changed[name] = sa.case((_answered(), VERDICTS.c[name]), else_=insert.excluded[name])
        return insert.on_conflict_do_update(
            index_elements=[VERDICTS.c.key], set_=changed, where=wins
        )

    def _human(self) -> Any:
        insert = self._insert(HUMANS)
        return insert.on_conflict_do_update(
            index_elements=[HUMANS.c.text_key],
            set_={name: insert.excluded[name] for name in ("text", "label", "created_at")},
            where=sa.and_(
                insert.excluded.created_at >= HUMANS.c.created_at,
                insert.excluded.label.is_distinct_from(HUMANS.c.label),
            ),
        )

    def _review(self) -> Any:
        insert = self._insert(REVIEWS)
        return insert.on_conflict_do_update(
            index_elements=[REVIEWS.c.text_key],
            set_={column.name: insert.excluded[column.name] for column in REVIEWS.c},
            where=insert.excluded.created_at >= REVIEWS.c.created_at,
        )


def _answered() -> Any:
    # Not IN: a statement for many rows takes no expanding parameter.
    return sa.or_(*(VERDICTS.c.outcome == answer for answer in ANSWERS))


def _correct_request() -> Any:
    """A None leaves the estimate as it is."""
    tokens = sa.bindparam("corrected_tokens", type_=sa.BigInteger)
    cost = sa.bindparam("corrected_cost_usd", type_=sa.Double)
    return (
        sa.update(REQUESTS)
        .where(REQUESTS.c.id == sa.bindparam("request_id", type_=sa.Text))
        .values(
            tokens=sa.func.coalesce(tokens, REQUESTS.c.tokens),
            cost_usd=sa.func.coalesce(cost, REQUESTS.c.cost_usd),
        )
    )


def storable(text: str) -> str:
    """`text` as every database takes it."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def stored_text_key(text: str) -> str:
    """The identity of a text, the same before and after it was stored."""
    return text_key(storable(text))


def sent_row(sent: Sent) -> dict[str, Any]:
    """A row of `requests`."""
    return {
        "id": sent.id,
        "key": sent.key,
        "judge": sent.judge,
        "asked_in": sent.asked_in,
        "sent_at": sent.sent_at,
        "tokens": sent.tokens,
        "cost_usd": sent.cost_usd,
    }


def received_row(received: Received) -> dict[str, Any]:
    """The parameters of `Statements.received`."""
    tokens = received.prompt_tokens + received.completion_tokens
    told = received.kept_estimate or tokens > 0
    return {
        "request_id": received.id,
        "result": received.result,
        "latency_ms": received.latency_ms,
        "prompt_tokens": received.prompt_tokens,
        "completion_tokens": received.completion_tokens,
        "corrected_tokens": tokens if tokens or not received.kept_estimate else None,
        "corrected_cost_usd": 0.0 if received.cost_usd is None and not told else received.cost_usd,
    }


def kept_row(kept: Kept, now: datetime) -> dict[str, Any]:
    """A row of `verdicts`."""
    verdict, question = kept.verdict, kept.question
    return verdict_row(
        Record(
            key=verdict.key,
            text=question.text,
            candidates=tuple(candidate.label for candidate in question.candidates),
            mode=question.mode,
            judge=verdict.judge,
            prompt_version=PROMPT_VERSION,
            outcome=verdict.outcome,
            label=verdict.label,
            requests=verdict.requests,
            latency_ms=verdict.latency_ms,
            prompt_tokens=verdict.prompt_tokens,
            completion_tokens=verdict.completion_tokens,
            cost_usd=verdict.cost_usd,
            error=verdict.error,
            version=verdict.version,
            asked_in=kept.asked_in,
            created_at=now,
        )
    )


def verdict_row(record: Record) -> dict[str, Any]:
    """A row of `verdicts`."""
    row = {name: getattr(record, name) for name in RECORD_COLUMNS}
    row |= {f"own_{name}": row[name] for name in _SPENT}
    return row | {
        "text_key": stored_text_key(record.text),
        "candidates": [storable(label) for label in record.candidates],
        "outcome": record.outcome.value,
    }


def failed_row(kept: Kept) -> dict[str, Any]:
    """A row of `failures`."""
    columns = (column.name for column in FAILURES.c if column.name != "asked_in")
    row = {name: getattr(kept.verdict, name) for name in columns}
    return row | {"asked_in": kept.asked_in, "outcome": kept.verdict.outcome.value}


def human_row(human: HumanVerdict, now: datetime) -> dict[str, Any]:
    """A row of `humans`."""
    return {
        "text_key": stored_text_key(human.text),
        "text": human.text,
        "label": human.label,
        "created_at": human.given_at or now,
    }


def review_row(review: Review, now: datetime) -> dict[str, Any]:
    """A row of `reviews`."""
    return {
        "text_key": stored_text_key(review.text),
        "text": review.text,
        "reason": review.reason,
        "candidates": [[storable(label), share] for label, share in review.candidates],
        "note": review.note,
        "bundle": review.bundle,
        "created_at": review.created_at or now,
    }


def review_of(row: sa.RowMapping) -> Review:
    """A row of `reviews` as it was written."""
    columns = {name: row[name] for name in Review.__dataclass_fields__}
    return Review(**columns | {"candidates": tuple(map(tuple, row["candidates"]))})


RECORD_COLUMNS = tuple(Record.__dataclass_fields__)


def record_of(row: sa.RowMapping) -> Record:
    """A row of `verdicts` as it was written."""
    columns = {name: row[name] for name in RECORD_COLUMNS}
    candidates, outcome = tuple(row["candidates"]), Outcome(row["outcome"])
    return Record(**columns | {"candidates": candidates, "outcome": outcome})
