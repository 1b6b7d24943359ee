"""What is called to answer a question, apart from how: both clients carry the plans out."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from red_ray.client.calls import Answer, Call, json_bytes
from red_ray.errors import EndpointError
from serve.schemas import (
    ClassifyAnswer,
    Escalate,
    FeedbackAnswer,
    LimitsInfo,
    ModelInfo,
    Queue,
    Stats,
)

MODEL = Call("GET", "v1/model", ModelInfo)
STATS = Call("GET", "v1/stats", Stats)
READY = "readyz"

FEEDBACK_PER_CALL = 256
"""Most that the schema takes."""

CHANGE_WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each time that older answers are asked for anew: replicas are exchanged in seconds."""

_BODY_BYTES = 1_000  # left for what stands in a body beside the items

Item = str | Mapping[str, str | None]
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class Round(Generic[Answer]):
    """Calls that need not wait for each other, after a wait."""

    calls: Sequence[Call[Answer]]
    wait_s: float = 0.0


Plan = Generator[Round[Answer], list[Answer], Done]
"""Gives a round, takes its answers in the order of its calls, and returns what came of all."""


def feedback_items(labels: Mapping[str, str | None]) -> list[Item]:
    """Labels as the endpoint takes them."""
    return [{"text": text, "label": label} for text, label in labels.items()]


def cut(items: Sequence[Item], limits: LimitsInfo | None, most: int | None) -> list[slice]:
    """Parts of the items, in order, that each fit into a call.

    Args:
        items: what is to be sent; one that is too long by itself stands alone.
        limits: of the endpoint; None: no bound.
        most: items of a call at most; None: as many as the endpoint takes.
    """
    bounds = [bound for bound in (most, limits and limits.texts_per_call) if bound]
    n_most = min(bounds, default=len(items))
    bytes_most = (limits.body_bytes if limits else 2**62) - _BODY_BYTES
    parts, start, used = [], 0, 0
    for position, item in enumerate(items):
        size = len(json_bytes(item)) + 1
        if position > start and (position - start >= n_most or used + size > bytes_most):
            parts.append(slice(start, position))
            start, used = position, 0
        used += size
    return [*parts, slice(start, len(items))] if items else []


def queue_call(limit: int | None) -> Call[Queue]:
    """`limit`: texts at most; None leaves it to the endpoint."""
    return Call("GET", "v1/queue", Queue, params={} if limit is None else {"limit": limit})


def classify_calls(
    texts: Sequence[str], parts: Sequence[slice], *, top_k: int, escalate: Escalate, explain: bool
) -> list[Call[ClassifyAnswer]]:
    """One call for each part; what the values may be is the endpoint's word."""
    options = {"top_k": top_k, "escalate": escalate, "explain": explain}
    return [
        Call(
            "POST",
            "v1/classify",
            ClassifyAnswer,
            {"texts": texts[part], **options},
            place=_place("texts", part),
        )
        for part in parts
    ]


def classify_plan(calls: Sequence[Call[ClassifyAnswer]]) -> Plan[ClassifyAnswer, ClassifyAnswer]:
    """Results in order, all of one bundle: parts that an older one answered are asked for anew.

    Raises:
        EndpointError: the bundle kept changing.
    """
    answers = _checked(calls, (yield Round(calls)))
    last = len(calls) - 1
    for wait_s in CHANGE_WAITS_S:
        older = [row for row, one in enumerate(answers) if one.bundle != answers[last].bundle]
        if not older:
            break
        again = [calls[row] for row in older]
        for row, answer in zip(older, _checked(again, (yield Round(again, wait_s))), strict=True):
            answers[row] = answer
        last = older[-1]
    return _of_one_bundle(answers)


def feedback_calls(items: Sequence[Item], parts: Sequence[slice]) -> list[Call[FeedbackAnswer]]:
    """One call for each part."""
    return [
        Call(
            "POST",
            "v1/feedback",
            FeedbackAnswer,
            {"answers": items[part]},
            place=_place("answers", part),
        )
        for part in parts
    ]


def feedback_plan(calls: Sequence[Call[FeedbackAnswer]]) -> Plan[FeedbackAnswer, FeedbackAnswer]:
    """How many labels were new, over all calls."""
    answers = yield Round(calls)
    return FeedbackAnswer(kept=sum(one.kept for one in answers), bundle=answers[-1].bundle)


def _place(name: str, part: slice) -> str:
    return f" ({name}[0] of that call is {name}[{part.start}] of yours)" if part.start else ""


def _checked(
    calls: Sequence[Call[ClassifyAnswer]], answers: list[ClassifyAnswer]
) -> list[ClassifyAnswer]:
    for call, answer in zip(calls, answers, strict=True):
        n_asked = len((call.given or {})["texts"])
        if len(answer.results) != n_asked:
            raise EndpointError(
                f"the endpoint gave {len(answer.results)!r} results for {n_asked!r} texts; check "
                "that client and endpoint are of one version"
            )
    return answers


def _of_one_bundle(answers: Sequence[ClassifyAnswer]) -> ClassifyAnswer:
    bundles = sorted({one.bundle for one in answers})
    if len(bundles) > 1:
        raise EndpointError(
            f"parts were answered by {len(bundles)} bundles ({', '.join(map(repr, bundles))}), "
            f"also when asked for anew over {sum(CHANGE_WAITS_S):.0f} s; the endpoint is changing "
            "its model: ask again when it is done"
        )
    results = [result for one in answers for result in one.results]
    return ClassifyAnswer(bundle=bundles[0], results=results)
