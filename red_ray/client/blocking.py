"""The endpoint as an object."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

import httpx
from tenacity import Retrying

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


class Client:
    """Asks the endpoint, one call after the other; may be shared by threads.

        with Client("http://127.0.0.1:8000") as client:
            client.classify(["my card never arrived"]).results[0].label

    A call is tried again after connection errors, time-outs, 408, 429 and 502 to 504, after the
    endpoint's `Retry-After` if it names one: all calls may be repeated without harm.

    Args:
        base_url: by default RED_RAY_URL, or http://127.0.0.1:8000.
        token: by default RED_RAY_TOKEN; none is sent where there is none.
        timeout_s: for one try; longer than the endpoint waits for its judge.
        attempts: tries of a call at most.
        total_time_s: no try of a call begins after it, and a longer `Retry-After` is not waited
            for.
        texts_per_call: texts of a call at most; None: as many as the endpoint takes.
        transport: httpx's by default.
        clock: monotonic seconds.
        sleep: how a wait is spent.

    Raises:
        ConfigError: a value that cannot be.
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
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        check_positive("texts_per_call", texts_per_call)
        address = Address.find(base_url, token)
        self._patience = Patience(timeout_s, attempts, total_time_s)
        self._texts_per_call = texts_per_call
        self._http = httpx.Client(
            base_url=address.url, headers=address.headers, transport=transport
        )
        self._limits: LimitsInfo | None = None
        self._clock = clock
        self._sleep = sleep

    def classify(
        self,
        texts: Iterable[str],
        *,
        top_k: int = 3,
        escalate: Escalate = "auto",
        explain: bool = False,
    ) -> ClassifyAnswer:
        """Decisions on any number of texts, in their order, all by the bundle that is named.

        Many texts are cut into several calls. Where the endpoint takes over a new bundle
        meanwhile, those that the older one answered are asked for anew; what a judge said is in
        the ledger by then and costs nothing again.

        Args:
            texts: half of a surrogate pair is sent as "?", as the encoder has it.
            top_k: labels to name for each.
            escalate: `auto`: the judge is asked about what the model escalates; `always`: about
                all; `never`: about none.
            explain: whether each result says how it came about.

        Raises:
            RequestRefused: the endpoint refuses it: the token, a length, a value.
            EndpointUnavailable: it is away or overloaded, after all tries.
            EndpointError: it answered what cannot be used, or kept changing its bundle.
            TypeError: `texts` is one string, or holds something else than strings.
        """
        given = checked_texts(texts)
        if not given:
            return ClassifyAnswer(bundle=self.model().bundle, results=[])
        parts = cut(given, self._limits_for(len(given)), self._texts_per_call)
        calls = classify_calls(given, parts, top_k=top_k, escalate=escalate, explain=explain)
        return self._carry_out(classify_plan(calls))

    def feedback(self, labels: Mapping[str, str | None]) -> FeedbackAnswer:
        """Give a person's labels, text to label; None says that no label fits the text.

        A later word on a text replaces an earlier one. Errors as of `classify`.
        """
        if not labels:
            return FeedbackAnswer(kept=0, bundle=self.model().bundle)
        items = feedback_items(labels)
        parts = cut(items, self._limits_for(len(items)), FEEDBACK_PER_CALL)
        return self._carry_out(feedback_plan(feedback_calls(items, parts)))

    def model(self) -> ModelInfo:
        """The model that answers: labels, thresholds, limits, scorecard, versions."""
        info = self._send(MODEL)
        self._limits = info.limits
        return info

    def queue(self, limit: int | None = None) -> Queue:
        """Texts that wait for a person, newest first; `limit`: the endpoint's own where None."""
        return self._send(queue_call(limit))

    def stats(self) -> Stats:
        """Live rates."""
        return self._send(STATS)

    def is_ready(self) -> bool:
        """Whether the endpoint takes requests now; asked once, False where nothing answers.

        Raises:
            RequestRefused: what answers knows no `/readyz`, or does not let us in.
        """
        try:
            return is_ready(self._http.get(READY, timeout=self._patience.timeout_s))
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _limits_for(self, n_texts: int) -> LimitsInfo | None:
        """None for one text, which cannot be cut; asked for once."""
        if n_texts > 1 and self._limits is None:
            self.model()
        return self._limits

    def _carry_out(self, plan: Plan[Answer, Done]) -> Done:
        asked = next(plan)
        while True:
            if asked.wait_s:
                self._sleep(asked.wait_s)
            answers = [self._send(call) for call in asked.calls]
            try:
                asked = plan.send(answers)
            except StopIteration as done:
                result: Done = done.value
                return result

    def _send(self, call: Call[Answer]) -> Answer:
        tries = Tries(self._patience, self._clock)
        answer: Answer = Retrying(sleep=self._sleep, **tries.options())(self._try, call, tries)
        return answer

    def _try(self, call: Call[Answer], tries: Tries) -> Answer:
        try:
            response = self._http.request(**call.request(tries.timeout_s()))
        except httpx.HTTPError as error:
            raise transport_error(str(self._http.base_url), error) from error
        return call.read(response)
