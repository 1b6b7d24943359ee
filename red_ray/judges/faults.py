"""What went wrong over HTTP, in the terms of the error tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from red_ray.errors import JudgeError, JudgeRefused, JudgeUnavailable, SchemaRefused
from red_ray.retry_after import retry_after_s

# What servers name when they cannot constrain an answer; "information" is not "format".
_SCHEMA = re.compile(
    r"response_format|json_schema|\b(?:format|schema|grammar|unsupported)\b|not supported",
    re.IGNORECASE,
)
_BAD_REQUEST = (400, 422)
_SURELY_SCHEMA = re.compile(r"response_format|json_schema", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Remedies:
    """How a refusal is mended: `denied` for 401 and 403, `missing` for 404."""

    denied: str
    missing: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP answer that is no success. `body` is read, never shown: it may quote a text."""

    status: int
    headers: Mapping[str, str]
    body: str


def status_error(
    failure: Failure,
    *,
    judge: str,
    remedies: Remedies,
    with_schema: bool = False,
    has_answered: bool = False,
    now: datetime | None = None,
) -> JudgeError:
    """The error that an HTTP status stands for.

    Args:
        failure: status, headers and body.
        judge: name of the judge, for the message.
        remedies: what to tell the user.
        with_schema: whether the request asked for an answer that follows a schema.
        has_answered: whether the judge takes such requests: a fault is then of this question.
        now: the time that a `Retry-After` date is measured from; the system's by default.
    """
    status = failure.status
    told = f"judge {judge!r} answered HTTP {status!r}"
    if with_schema and _is_about_schema(failure):
        return SchemaRefused(f"{told}: it takes no answer schema; asked without one from now on")
    if status in (408, 429) or status >= 500:
        wait_s = retry_after_s(failure.headers.get("Retry-After"), now or datetime.now(UTC))
        return JudgeUnavailable(told, wait_s, f"http_{status}")
    if status == 402:
        return JudgeRefused(f"{told}: the account has no credit; top it up")
    if status in (401, 403):
        return JudgeRefused(f"{told}: {remedies.denied}")
    if status == 404:
        return JudgeRefused(f"{told}: {remedies.missing}")
    if _is_too_long(failure):
        return JudgeError(f"{told}: the prompt is too long for the model; lower max_chars")
    if status in _BAD_REQUEST:
        return _bad_request(told, failure, has_answered=has_answered)
    return JudgeRefused(f"{told}: check that the address and the model take such requests")


def _bad_request(told: str, failure: Failure, *, has_answered: bool) -> JudgeError:
    if has_answered:
        return JudgeError(
            f"{told} to this question alone (a content filter?); label it by hand or leave it out"
        )
    if _is_about_temperature(failure):
        return JudgeRefused(
            f"{told}: set judge.temperature to null (the model's own) or to a value it takes"
        )
    return JudgeRefused(
        f"{told}: check that the address and the model take such requests, with "
        "judge.temperature and judge.max_answer_tokens as they are"
    )


def _is_about_schema(failure: Failure) -> bool:
    named = failure.status in (*_BAD_REQUEST, 501) and _SCHEMA.search(failure.body)
    return bool(named) and not _is_too_long(failure) and not _is_about_temperature(failure)


def _is_about_temperature(failure: Failure) -> bool:
    """Newer models take their own only, and say so in words that could be about a schema."""
    named = failure.status in _BAD_REQUEST and "temperature" in failure.body.lower()
    # A list of what a server does take may name it as well.
    return named and not _SURELY_SCHEMA.search(failure.body)


def _is_too_long(failure: Failure) -> bool:
    """Whether this prompt alone is at fault: vLLM, llama.cpp and OpenAI answer 400 then."""
    return failure.status == 413 or (failure.status == 400 and "context" in failure.body.lower())
