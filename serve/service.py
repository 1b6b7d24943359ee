"""What answers the endpoint's calls; knows neither HTTP nor Ray."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

from red_ray.errors import DataError, RedRayError
from red_ray.judges.ledger import Review
from red_ray.types import Decision
from serve import rates
from serve.about import judge_info, model_info, promised
from serve.batcher import Batcher
from serve.desk import News
from serve.explain import explanations
from serve.judging import AsksDesk, Judging, Settled
from serve.loaded import Loaded, Stamp, load, stamp_of
from serve.schemas import (
    Alternative,
    ClassifyAnswer,
    ClassifyRequest,
    Explanation,
    Feedback,
    FeedbackAnswer,
    LimitsInfo,
    ModelInfo,
    Queue,
    Result,
    Stats,
    Step,
)
from serve.scoring import PackedScorer, Scored, Scorer, together
from serve.settings import ServeSettings

_log = logging.getLogger(__name__)

REPORT_S = 1.0
"""Between two reports to the desk."""

RETRY_S = 30.0
"""Until a refused bundle is tried again as it is: its encoder may have come, a shard be back."""

MAX_REVIEWS_WAITING = 1000
"""Of texts for people, between two reports; more are not kept."""


class AsksAll(AsksDesk, Protocol):
    """The desk, here or in another process; see `serve.desk.Desk`."""

    async def feedback(self, run: str, answers: Sequence[Feedback], labels: Sequence[str]) -> int:
        """Keep what people said."""

    async def queue(self, run: str, limit: int) -> Queue:
        """The texts that wait for a person."""

    async def report(self, run: str, snapshot: rates.Snapshot, reviews: Sequence[Review]) -> News:
        """Take what a replica did."""

    async def stats(self, run: str, promised: rates.Promised | None) -> Stats:
        """What all replicas did."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """A newer bundle that cannot answer; `at` is in `perf_counter`'s time."""

    stamp: Stamp | None
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to classify that is under way; `start` is in `perf_counter`'s time, `at` in UTC."""

    asked: ClassifyRequest
    loaded: Loaded
    start: float
    at: datetime


class Service:
    """Answers calls from one bundle at a time, and takes over a newer one.

    Args:
        settings: of the endpoint.
        desk: holds ledger, judge and rates.
        thread: an executor of one thread, for the encoder and what follows it.
        scorer: assesses texts; all in this process by default.
        loads: loads a run's bundle.
    """

    def __init__(
        self,
        settings: ServeSettings,
        desk: AsksAll,
        thread: Executor,
        scorer: Scorer | None = None,
        *,
        loads: Callable[[str, ServeSettings, Loaded | None], Loaded] = load,
    ) -> None:
        self.settings = settings
        self._loads = loads
        self._desk = desk
        self._scorer = scorer or PackedScorer(thread)
        self._judging = Judging(desk, settings.judge)
        self._rates = rates.Rates(uuid.uuid4().hex)
        self._run = settings.run
        self._loaded: Loaded | None = None
        self._failed: _Refused | None = None
        self._reviews: list[Review] = []
        self._taking_over = asyncio.Lock()
        self._reporting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._batcher: Batcher[Loaded, Scored] = Batcher(
            self._score,
            Scored.cut,
            max_texts=settings.batch_texts,
            max_wait_s=settings.limits.wait_s,
            texts_per_s=1.0,
            lanes=1 if settings.layout == "packed" else 2,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Load the bundle, and watch for a newer one until the block ends.

        Raises:
            RedRayError: it cannot answer.
        """
        await self._take_over()
        self._tasks = [
            asyncio.create_task(self._every(self.settings.watch_s, self._watch)),
            asyncio.create_task(self._every(REPORT_S, self._report)),
        ]
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._batcher.close()
            await self._judging.close()
            with suppress(RedRayError):
                await self._report()

    @property
    def is_ready(self) -> bool:
        """Whether a bundle is there to answer."""
        return self._loaded is not None

    @property
    def bundle(self) -> str:
        """The id of the bundle that answers."""
        return self._answering.model.bundle_id

    async def classify(self, asked: ClassifyRequest) -> ClassifyAnswer:
        """Decide on the texts of a call.

        Raises:
            DataError: a text is empty or too long, there are too many, or a judge must answer and
                there is none.
            OverloadedError: too much waits already.
        """
        call = _Call(asked, self._answering, perf_counter(), datetime.now(UTC))
        self._check(call)
        texts = asked.texts
        scored = together(await self._batcher.submit(call.loaded, texts))
        assessed = perf_counter()
        decisions = call.loaded.model.decide(scored.assessment, top_k=asked.top_k)
        decided = perf_counter()
        settled = await self._judging.settle(
            call.loaded, texts, scored, decisions, escalate=asked.escalate
        )
        judged = perf_counter()
        self._note(call, decisions, settled)
        told: Sequence[Explanation | None] = [None] * len(texts)
        if asked.explain:
            # On another thread: it takes as long as the encoder does, and others wait for us.
            times = (assessed, decided)
            told = await asyncio.to_thread(self._explained, call, scored, settled, times)
        results = [_result(one.decision, why) for one, why in zip(settled, told, strict=True)]
        done = perf_counter()
        self._rates.steps(
            wait=_waited_ms(call, scored, assessed),
            decide=1e3 * (decided - assessed),
            judge=1e3 * (judged - decided),
            explain=1e3 * (done - judged),
        )
        self._rates.latency(1e3 * (done - call.start))
        return ClassifyAnswer(bundle=call.loaded.model.bundle_id, results=results)

    async def _score(self, loaded: Loaded, texts: Sequence[str]) -> Scored:
        """Assess a batch, and count it."""
        scored = await self._scorer.score(loaded, texts)
        self._rates.batch(len(texts), encode=scored.encode_ms, evidence=scored.evidence_ms)
        return scored

    async def feedback(self, answers: Sequence[Feedback]) -> FeedbackAnswer:
        """Keep what people said of texts.

        Raises:
            DataError: a label is unknown, or a text is too long.
            StorageError: it could not be kept.
        """
        loaded = self._answering
        for at, one in enumerate(answers):
            self._check_length(f"answers[{at}].text", one.text, loaded)
        kept = await self._desk.feedback(loaded.place, answers, loaded.model.labels)
        return FeedbackAnswer(kept=kept, bundle=loaded.model.bundle_id)

    async def queue(self, limit: int) -> Queue:
        """The texts that wait for a person."""
        return await self._desk.queue(self._answering.place, limit)

    async def stats(self) -> Stats:
        """What all replicas did, this one up to now."""
        await self._report()
        loaded = self._answering
        return await self._desk.stats(loaded.place, promised(loaded.model))

    def about(self) -> ModelInfo:
        """The model that answers."""
        loaded, limits = self._answering, self.settings.limits
        judge, config = self.settings.judge, loaded.config
        return model_info(
            loaded.model,
            loaded.run.path,
            loaded_at=loaded.at,
            layout=self.settings.layout,
            judge=judge_info(
                config.judge, wait_s=judge.wait_s, on_failure=config.router.on_failure
            ),
            limits=LimitsInfo(
                texts_per_call=limits.texts_per_call,
                chars_per_text=self._most_chars(loaded),
                body_bytes=limits.body_bytes,
                wait_s=limits.wait_s,
            ),
            failed_update=None if self._failed is None else self._failed.why,
        )

    def count_error(self) -> None:
        """A call failed."""
        self._rates.error()

    def count_refusal(self) -> None:
        """A call was refused for load."""
        self._rates.refusal()

    async def follow(self, run: str) -> None:
        """Answer from another run from now on; what answers now stays where that is not possible.

        Raises:
            RedRayError: there was nothing to answer from before.
        """
        self._run = run
        try:
            await self._take_over()
        except RedRayError:
            if self._loaded is None:
                raise

    @property
    def _answering(self) -> Loaded:
        if self._loaded is None:
            raise RuntimeError("a service answers inside `opened` only")
        return self._loaded

    def _check(self, call: _Call) -> None:
        limits, texts = self.settings.limits, call.asked.texts
        if call.asked.escalate == "always" and call.loaded.judge is None:
            raise DataError(
                "escalate: 'always' asks a judge, and this endpoint has none; send 'auto' or "
                "'never', or have it served with --judge"
            )
        if len(texts) > limits.texts_per_call:
            raise DataError(
                f"{len(texts):,} texts in one call; at most {limits.texts_per_call:,} are taken: "
                "send them in several"
            )
        for at, text in enumerate(texts):
            self._check_length(f"texts[{at}]", text, call.loaded)
            if not text.strip():
                raise DataError(f"texts[{at}] is empty; give a text")

    def _check_length(self, name: str, text: str, loaded: Loaded) -> None:
        most = self._most_chars(loaded)
        if len(text) > most:
            raise DataError(f"{name} has {len(text):,} characters; at most {most:,} are taken")

    def _most_chars(self, loaded: Loaded) -> int:
        return self.settings.limits.chars_per_text or loaded.config.max_chars

    def _note(self, call: _Call, decisions: Sequence[Decision], settled: Sequence[Settled]) -> None:
        """Count what was decided, and keep for people what nobody answered."""
        asked = call.asked
        self._rates.add(
            decisions=[one.decision.decision for one in settled],
            sources=[one.decision.source for one in settled],
            n_escalated=sum(one.decision == "escalate" for one in decisions),
            is_auto=asked.escalate == "auto",
            bundle=call.loaded.model.bundle_id,
        )
        if asked.escalate == "never":
            return
        for text, before, after in zip(asked.texts, decisions, settled, strict=True):
            if after.decision.decision in ("escalate", "abstain"):
                if len(self._reviews) >= MAX_REVIEWS_WAITING:
                    return
                self._reviews.append(_review(call, text, before, after))

    def _explained(
        self,
        call: _Call,
        scored: Scored,
        settled: Sequence[Settled],
        times: tuple[float, float],
    ) -> list[Explanation]:
        start = perf_counter()
        assessed, decided = times
        told = explanations(
            call.loaded.model,
            scored.vectors,
            scored.evidence,
            scored.assessment,
            [one.decision for one in settled],
            top_k=call.asked.top_k,
        )
        done = perf_counter()
        steps = [
            Step(step="wait", ms=_waited_ms(call, scored, assessed)),
            Step(step="encode", ms=scored.encode_ms),
            Step(step="evidence", ms=scored.evidence_ms),
            Step(step="decide", ms=1e3 * (decided - assessed)),
            Step(step="explain", ms=1e3 * (done - start)),
        ]
        asking_ms = 1e3 * (start - decided)
        explained = []
        for one, how in zip(told, settled, strict=True):
            more: dict[str, Any] = {"steps": steps}
            if how.said is not None:
                judge = Step(step="judge", ms=asking_ms, cost_usd=how.said.cost_usd)
                more = {"judge": how.said, "steps": [*steps, judge]}
            explained.append(one.model_copy(update=more))
        return explained

    async def _take_over(self) -> None:
        async with self._taking_over:
            run, stamp = self._run, None
            try:
                stamp = await asyncio.to_thread(stamp_of, run)
                if self._loaded is None or stamp != self._loaded.stamp:
                    await self._begin(run)
            except RedRayError as error:
                if self._failed is None or self._failed.stamp != stamp:
                    _log.warning("bundle_refused", extra={"reason": str(error)})
                self._failed = _Refused(stamp, str(error), perf_counter())
                raise
            self._failed = None

    async def _begin(self, run: str) -> None:
        """Load a bundle, and answer from it once it is ready."""
        loaded = await asyncio.to_thread(self._loads, run, self.settings, self._loaded)
        await self._scorer.warm(loaded)
        self._batcher.texts_per_s = loaded.texts_per_s
        self._loaded = loaded
        _log.info("bundle_answers", extra={"bundle": loaded.model.bundle_id})

    async def _watch(self) -> None:
        stamp = await asyncio.to_thread(_stamp, self._run)
        if stamp is None:
            return
        failed = self._failed
        if failed is None and self._loaded is not None and stamp == self._loaded.stamp:
            return
        if failed is not None and failed.stamp == stamp and perf_counter() - failed.at < RETRY_S:
            return  # it was refused, and nothing changed since
        with suppress(RedRayError):
            await self._take_over()

    async def _report(self) -> None:
        # One at a time: who waits for a report must not overtake one that is still on its way.
        async with self._reporting:
            reviews, self._reviews = self._reviews, []
            is_told = False
            try:
                run = self._answering.place
                snapshot = self._rates.snapshot(promised(self._answering.model))
                news = await self._desk.report(run, snapshot, reviews)
                is_told = True
            except RedRayError as error:
                _log.warning("report_failed", extra={"reason": str(error)})
            else:
                self._judging.notice = news.notice
            finally:
                if not is_told:  # cancelled, perhaps: the next report takes them along
                    self._reviews = [*reviews, *self._reviews][:MAX_REVIEWS_WAITING]

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:  # noqa: BLE001 - one bad look must not end the looking
                _log.exception("background_step_failed")


def _waited_ms(call: _Call, scored: Scored, assessed: float) -> float:
    """How long a call waited for those before it."""
    waited_ms = 1e3 * (assessed - call.start) - scored.encode_ms - scored.evidence_ms
    return max(0.0, waited_ms)


def _stamp(run: str) -> Stamp | None:
    try:
        return stamp_of(run)
    except RedRayError:
        return None  # between two bundles there may be none


def _result(decision: Decision, why: Explanation | None) -> Result:
    found: dict[str, Any] = {
        "label": decision.label,
        "confidence": min(1.0, max(0.0, decision.confidence)),
        "decision": decision.decision,
        "source": decision.source,
        "alternatives": [
            Alternative.model_construct(label=one.label, confidence=one.confidence)
            for one in decision.alternatives
        ],
        "expert": decision.expert,
    }
    if why is not None:
        found["explanation"] = why
    # Not validated: it is ours, and validation would cost more than the rest of the answer.
    return Result.model_construct(set(found), **found)


def _review(call: _Call, text: str, before: Decision, after: Settled) -> Review:
    best = [] if before.label is None else [(before.label, before.confidence)]
    others = ((one.label, one.confidence) for one in before.alternatives)
    reason = "abstained" if after.decision.decision == "abstain" else "escalated"
    return Review(
        text=text,
        reason=reason,
        candidates=(*best, *others),
        note="" if after.said is None else after.said.error,
        bundle=call.loaded.model.bundle_id,
        created_at=call.at,  # a judge's answer that comes later takes the text off the queue
    )
