"""The endpoint as an object for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx
from tenacity import AsyncRetrying

from red_ray.client.address import Address
from red_ray.client.calls import Answer, Call, is_ready, transport_error
from red_ray.client.plans import (
    FEEDBACK_PER_CALL,
    MODEL,
    READY,
    STATS,
    Done,
    Plan,
    classify_calls,
    classify_plan,
    cut,
    feedback_calls,
    feedback_items,
    feedback_plan,
    queue_call,
)
from red_ray.client.tries import Patience, Tries, check_positive
from red_ray.core.text import checked_texts
from serve.schemas import (
    ClassifyAnswer,
    Escalate,
    FeedbackAnswer,
    LimitsInfo,
    ModelInfo,
    Queue,
    Stats,
)


class AsyncClient:
    """Asks the endpoint, a few calls at a time; for one event loop.

        async with AsyncClient("http://127.0.0.1:8000") as client:
            (await client.classify(["my card never arrived"])).results[0].label

    Arguments, methods and errors are those of `Client`, but:

    Args:
        calls_in_flight: calls under way at a time, over all that this client is asked; one that
            waits to be tried again is under way.
    """

    def __init__(
        self,
        base_url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        attempts: int = 6,
        total_time_s: float = 60.0,
        texts_per_call: int | None = None,
        calls_in_flight: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        check_positive("texts_per_call", texts_per_call)
        check_positive("calls_in_flight", calls_in_flight)
        address = Address.find(base_url, token)
        self._patience = Patience(timeout_s, attempts, total_time_s)
        self._texts_per_call = texts_per_call
        self._http = httpx.AsyncClient(
            base_url=address.url, headers=address.headers, transport=transport
        )
        self._free = asyncio.Semaphore(calls_in_flight)
        self._limits: LimitsInfo | None = None
        self._clock = clock
        self._sleep = sleep

    async def classify(
        self,
        texts: Iterable[str],
        *,
        top_k: int = 3,
        escalate: Escalate = "auto",
        explain: bool = False,
    ) -> ClassifyAnswer:
        """Decisions on any number of texts; see `Client.classify`."""
        given = checked_texts(texts)
        if not given:
            return ClassifyAnswer(bundle=(await self.model()).bundle, results=[])
        parts = cut(given, await self._limits_for(len(given)), self._texts_per_call)
        calls = classify_calls(given, parts, top_k=top_k, escalate=escalate, explain=explain)
        return await self._carry_out(classify_plan(calls))

    async def feedback(self, labels: Mapping[str, str | None]) -> FeedbackAnswer:
        """Give a person's labels, text to label; see `Client.feedback`."""
        if not labels:
            return FeedbackAnswer(kept=0, bundle=(await self.model()).bundle)
        items = feedback_items(labels)
        parts = cut(items, await self._limits_for(len(items)), FEEDBACK_PER_CALL)
        return await self._carry_out(feedback_plan(feedback_calls(items, parts)))

    async def model(self) -> ModelInfo:
        """The model that answers: labels, thresholds, limits, scorecard, versions."""
        info = await self._send(MODEL)
        self._limits = info.limits
        return info

    async def queue(self, limit: int | None = None) -> Queue:
        """Texts that wait for a person, newest first; `limit`: the endpoint's own where None."""
        return await self._send(queue_call(limit))

    async def stats(self) -> Stats:
        """Live rates."""
        return await self._send(STATS)

    async def is_ready(self) -> bool:
        """Whether the endpoint takes requests now; see `Client.is_ready`."""
        try:
            return is_ready(await self._http.get(READY, timeout=self._patience.timeout_s))
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _limits_for(self, n_texts: int) -> LimitsInfo | None:
        if n_texts > 1 and self._limits is None:
            await self.model()
        return self._limits

    async def _carry_out(self, plan: Plan[Answer, Done]) -> Done:
        asked = next(plan)
        while True:
            if asked.wait_s:
                await self._sleep(asked.wait_s)
            answers = await self._send_all(asked.calls)
            try:
                asked = plan.send(answers)
            except StopIteration as done:
                result: Done = done.value
                return result

    async def _send_all(self, calls: Sequence[Call[Answer]]) -> list[Answer]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._send(call)) for call in calls]
        except ExceptionGroup as failed:
            # The first is the cause; the others were cancelled or came to the same.
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
        return [task.result() for task in tasks]

    async def _send(self, call: Call[Answer]) -> Answer:
        async with self._free:
            tries = Tries(self._patience, self._clock)
            return await AsyncRetrying(sleep=self._sleep, **tries.options())(self._try, call, tries)

    async def _try(self, call: Call[Answer], tries: Tries) -> Answer:
        try:
            response = await self._http.request(**call.request(tries.timeout_s()))
        except httpx.HTTPError as error:
            raise transport_error(str(self._http.base_url), error) from error
        return call.read(response)
