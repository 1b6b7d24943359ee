"""Asks a judge many questions at once, and none of them twice."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar, TypeVarTuple

import numpy as np

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError, JudgeRefused, JudgeTimeout
from red_ray.judges.base import Judge, question_key
from red_ray.judges.ledger import Ledger
from red_ray.judges.retries import Attempts, Clock, RetryPolicy, Silence, Sleep
from red_ray.types import Outcome, Question, Reply, Verdict

_N_LATENCIES = 10_000  # the quantiles look back that far, so that memory stays flat

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Todo = deque[tuple[int, str, Question]]
_Done = asyncio.Queue[tuple[int, Verdict] | None]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What the pool did since it was made.

    `requests` counts retries and failures, `cached` questions that the ledger answered,
    `answered` labels and nones bought. Latencies are of whole questions, from the first request
    to the outcome, failures included; 0 before the first.
    """

    requests: int
    answered: int
    cached: int
    unreadable: int
    timeouts: int
    errors: int
    in_flight: int
    waiting: int
    latency_p50_ms: float
    latency_p95_ms: float


@dataclass(slots=True)
class _Shared:
    """A question being asked, and how many wait for it."""

    task: asyncio.Task[Verdict | None]
    n_waiting: int = 0


@dataclass(slots=True)
class _Counters:
    requests: int = 0
    cached: int = 0
    in_flight: int = 0
    waiting: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_N_LATENCIES))


class _BudgetUsedUpError(Exception):
    """No request is left; stays inside the pool."""


class ValidatorPool:
    """Puts questions to a judge: ledger first, then within a limit of concurrency and a budget.

    A verdict is in the ledger before anyone sees it. A time-out, an error and an answer that
    cannot be read stay outcomes of their own. One pool serves all callers of a judge, on one
    event loop; it needs the ledger for itself, but leaves closing it to its maker.

    Args:
        judge: whom to ask.
        ledger: what was asked before.
        config: concurrency, attempts, total time and budget.
        sleep: waits between attempts.
        clock: monotonic seconds.
        rng: draws the jitter of the waits.
    """

    def __init__(
        self,
        judge: Judge,
        ledger: Ledger,
        config: JudgeConfig,
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._judge = judge
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._retries = RetryPolicy(
            config, sleep=sleep, clock=clock, rng=rng or np.random.default_rng()
        )
        self._silence = Silence(config.total_time_s)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._ledger_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._asked: dict[str, _Shared] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._count = _Counters()
        self._requests_before = ledger.count_requests()

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up: questions that the ledger does not know stay unasked."""
        budget = self._config.budget_calls
        return budget is not None and self._requests_before + self._count.requests >= budget

    def key(self, question: Question) -> str:
        """The key under which a verdict answers `question`."""
        return question_key(question, self._judge.name)

    def stats(self) -> PoolStats:
        """Counters, and what is under way."""
        count = self._count
        p50, p95 = np.quantile(count.latencies_ms or [0.0], [0.5, 0.95])
        return PoolStats(
            requests=count.requests,
            answered=count.outcomes[Outcome.LABEL] + count.outcomes[Outcome.NONE],
            cached=count.cached,
            unreadable=count.outcomes[Outcome.UNREADABLE],
            timeouts=count.outcomes[Outcome.TIMEOUT],
            errors=count.outcomes[Outcome.ERROR],
            in_flight=count.in_flight,
            waiting=count.waiting,
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
        )

    async def validate(self, questions: Iterable[Question]) -> list[Verdict]:
        """The verdicts on `questions`, in their order.

        A question that the budget did not reach has no verdict; `Verdict.key` tells which. Of
        equal questions one carries the requests.

        Raises:
            JudgeRefused: the judge refuses all requests; the rest is cancelled.
            JudgeUnavailable: nobody had an answer for longer than `total_time_s`.
            StorageError: a verdict could not be stored.
        """
        async with aclosing(self._numbered(questions)) as numbered:
            verdicts = [item async for item in numbered]
        return [verdict for _, verdict in sorted(verdicts, key=lambda item: item[0])]

    async def stream(self, questions: Iterable[Question]) -> AsyncGenerator[Verdict, None]:
        """As `validate`, each verdict as soon as it is stored; what is not awaited is cancelled."""
        async with aclosing(self._numbered(questions)) as numbered:
            async for _, verdict in numbered:
                yield verdict

    async def close(self) -> None:
        """Cancel what is under way and close the judge; the ledger stays open."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        await self._judge.close()
        self._ledger_thread.shutdown(wait=False)

    async def _numbered(
        self, questions: Iterable[Question]
    ) -> AsyncGenerator[tuple[int, Verdict], None]:
        """Positions and verdicts as they come.

        The tasks live beside this generator, not in it: a task group around a `yield` would
        cancel its consumer.
        """
        done: _Done = asyncio.Queue()
        runner = asyncio.create_task(self._run(list(questions), done))
        runner.add_done_callback(lambda _: done.put_nowait(None))
        self._runners.add(runner)
        try:
            while (item := await done.get()) is not None:
                yield item
            await runner
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            self._runners.discard(runner)

    async def _run(self, questions: list[Question], done: _Done) -> None:
        """Hand out what the ledger knows, then ask the rest."""
        keys = [self.key(question) for question in questions]
        known = await self._in_thread(self._ledger.get_many, keys)
        todo: _Todo = deque()
        for position, (key, question) in enumerate(zip(keys, questions, strict=True)):
            if key in known:
                self._count.cached += 1
                done.put_nowait((position, known[key]))
            else:
                todo.append((position, key, question))
        await self._ask_all(todo, done)

    async def _ask_all(self, todo: _Todo, done: _Done) -> None:
        """Work off `todo` with as many workers as there are slots, however long it is."""
        self._count.waiting += len(todo)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._config.concurrency, len(todo))):
                    group.create_task(self._work(todo, done))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the one that stopped the others
        finally:
            self._count.waiting -= len(todo)

    async def _work(self, todo: _Todo, done: _Done) -> None:
        while todo:
            position, key, question = todo.popleft()
            self._count.waiting -= 1
            verdict = await self._share(key, question)
            if verdict is not None:
                done.put_nowait((position, verdict))

    async def _share(self, key: str, question: Question) -> Verdict | None:
        """Join the call that asks this already, or start it; the last to leave cancels it."""
        shared = self._asked.get(key)
        joined = shared is not None
        if shared is None:
            shared = self._asked[key] = _Shared(asyncio.create_task(self._answer(key, question)))
        shared.n_waiting += 1
        try:
            verdict = await asyncio.shield(shared.task)
        finally:
            shared.n_waiting -= 1
            if not shared.n_waiting:
                self._asked.pop(key)
                shared.task.cancel()
                await asyncio.wait([shared.task])
        return replace(verdict, requests=0) if joined and verdict else verdict

    async def _answer(self, key: str, question: Question) -> Verdict | None:
        """Take a slot, for as long as the question needs it, and look it up or ask."""
        self._count.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._count.waiting -= 1
        self._count.in_flight += 1
        try:
            # Once more: another caller may have asked it since this one looked.
            known = await self._in_thread(self._ledger.get_many, [key])
            if key in known:
                self._count.cached += 1
                return known[key]
            return await self._ask(key, question)
        finally:
            self._count.in_flight -= 1
            self._slots.release()

    async def _ask(self, key: str, question: Question) -> Verdict | None:
        """Ask until there is an outcome, and store it; None where no request was left."""
        attempts = Attempts(self._clock())
        try:
            await self._retries.loop(attempts)(self._request, question, attempts)
        except (JudgeRefused, asyncio.CancelledError) as error:
            # What it has cost is kept; the next run may ask it again.
            attempts.last = error if isinstance(error, JudgeError) else JudgeError("cancelled")
            await self._keep(key, question, attempts)
            raise
        except (JudgeError, _BudgetUsedUpError):
            pass  # the outcome is what came of the last request
        verdict = await self._keep(key, question, attempts)
        self._silence.check(attempts)
        return verdict

    async def _request(self, question: Question, attempts: Attempts) -> Reply:
        if self.exhausted:
            raise _BudgetUsedUpError
        # Counted before it leaves: whatever becomes of it, it may have been paid for.
        self._count.requests += 1
        attempts.requests += 1
        sent_s = self._clock()
        try:
            reply = await self._judge.ask(question)
        except JudgeError as error:
            attempts.last = error
            self._silence.note(error, sent_s)
            raise
        self._silence.end()
        attempts.add(reply)
        return reply

    async def _keep(self, key: str, question: Question, attempts: Attempts) -> Verdict | None:
        """Commit the outcome, then count it; None where no request was made."""
        if not attempts.requests:
            return None
        verdict = self._verdict(key, attempts)
        await self._in_thread(self._ledger.add, verdict, question)
        self._count.outcomes[verdict.outcome] += 1
        self._count.latencies_ms.append(verdict.latency_ms)
        return verdict

    def _verdict(self, key: str, attempts: Attempts) -> Verdict:
        last = attempts.last
        reply = last if isinstance(last, Reply) else Reply(_failed(last))
        return Verdict(
            key=key,
            outcome=reply.outcome,
            label=reply.label,
            judge=self._judge.name,
            requests=attempts.requests,
            latency_ms=(self._clock() - attempts.started_s) * 1000,
            prompt_tokens=attempts.prompt_tokens,
            completion_tokens=attempts.completion_tokens,
            error="" if last is reply else f"{type(last).__name__}: {last}",
        )

    async def _in_thread(self, call: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run a blocking call of the ledger to its end, cancelled or not."""
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._ledger_thread, call, *args)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            # A call not yet begun would be dropped, and with it an answer that was paid for.
            await asyncio.wait([job])
            raise


def _failed(error: JudgeError | None) -> Outcome:
    return Outcome.TIMEOUT if isinstance(error, JudgeTimeout) else Outcome.ERROR
