"""Texts of many calls go through together, none waits for a timer, and too many are refused."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from red_ray.errors import RunError
from serve.batcher import Batcher, OverloadedError


class Encoder:
    """Records its batches; each waits until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def run(self, model: str, texts: list[str]) -> list[str]:
        self.batches.append(list(texts))
        await self.gate.wait()
        if "broken" in texts:
            raise ValueError("broken")
        return [f"{model}:{text}" for text in texts]


def batcher(encoder: Encoder, **changes: object) -> Batcher[str, list[str]]:
    options = {"max_texts": 4, "max_wait_s": 1.0, "texts_per_s": 10.0} | changes
    return Batcher(encoder.run, lambda done, start, end: done[start:end], **options)  # type: ignore[arg-type]


async def submitted(made: Batcher[str, list[str]], *calls: list[str], model: str = "m"):
    tasks = [asyncio.create_task(made.submit(model, texts)) for texts in calls]
    await asyncio.sleep(0)
    return tasks


async def test_a_call_alone_is_run_at_once():
    encoder = Encoder()
    assert await batcher(encoder).submit("m", ["a"]) == [["m:a"]]
    assert encoder.batches == [["a"]]


async def test_what_comes_in_meanwhile_is_one_batch_and_each_call_gets_its_own():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    first = await submitted(made, ["a"])
    rest = await submitted(made, ["b"], ["c", "d"], ["e"])
    encoder.gate.set()
    assert await asyncio.gather(*first, *rest) == [
        [["m:a"]],
        [["m:b"]],
        [["m:c", "m:d"]],
        [["m:e"]],
    ]
    assert encoder.batches == [["a"], ["b", "c", "d", "e"]]


async def test_a_long_call_is_cut_into_pieces_that_come_back_in_order():
    encoder = Encoder()
    texts = [str(at) for at in range(9)]
    pieces = await batcher(encoder).submit("m", texts)
    assert [text for piece in pieces for text in piece] == [f"m:{text}" for text in texts]
    assert max(map(len, encoder.batches)) == 4


async def test_texts_of_two_models_are_never_in_one_batch():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    first = await submitted(made, ["a"])
    old, new = await submitted(made, ["b"]), await submitted(made, ["c"], model="n")
    encoder.gate.set()
    assert await asyncio.gather(*first, *old, *new) == [[["m:a"]], [["m:b"]], [["n:c"]]]
    assert encoder.batches == [["a"], ["b"], ["c"]]


async def test_a_call_that_would_wait_too_long_is_refused_and_told_when_to_come_back():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    running = await submitted(made, ["a"], *[[str(at)] for at in range(31)])
    with pytest.raises(OverloadedError) as refused:
        await made.submit("m", ["late"])
    assert refused.value.retry_after_s == 1
    encoder.gate.set()
    await asyncio.gather(*(task for task in running), return_exceptions=True)
    assert await made.submit("m", ["later"]) == [["m:later"]]


async def test_texts_of_a_caller_who_went_away_are_not_run():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    first = await submitted(made, ["a"])
    gone, stays = await submitted(made, ["gone"], ["stays"])
    gone.cancel()
    await asyncio.sleep(0)
    encoder.gate.set()
    await asyncio.gather(*first, stays)
    assert encoder.batches == [["a"], ["stays"]]


async def test_an_error_reaches_the_calls_of_its_batch_and_no_other():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    first = await submitted(made, ["a"])
    broken, shared = await submitted(made, ["broken"], ["b"])
    encoder.gate.set()
    assert await first[0] == [["m:a"]]
    for call in (broken, shared):
        with pytest.raises(ValueError, match="broken"):
            await call
    assert await made.submit("m", ["c"]) == [["m:c"]]


async def test_full_batches_correct_the_throughput_and_small_ones_do_not():
    encoder, now = Encoder(), [0.0]

    async def slowly(model: str, texts: list[str]) -> list[str]:
        now[0] += 1.0
        return await encoder.run(model, texts)

    made = Batcher(
        slowly,
        lambda done, start, end: done[start:end],
        max_texts=4,
        max_wait_s=1.0,
        texts_per_s=100.0,
        clock=lambda: now[0],
    )
    await made.submit("m", ["a"])
    assert made.texts_per_s == 100.0
    for _ in range(60):
        await made.submit("m", ["a", "b", "c", "d"])
    assert made.texts_per_s == pytest.approx(4.0, rel=0.01)


async def test_closing_cancels_what_waits():
    encoder = Encoder(held=True)
    made = batcher(encoder)
    first, waits = await submitted(made, ["a"], ["b", "c", "d", "e"])
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    encoder.gate.set()
    await closing
    assert await first == [["m:a"]]
    with pytest.raises(asyncio.CancelledError):
        await waits


OF_A_CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("of a caller", default="")


async def test_a_batch_is_run_in_no_callers_context():
    """Serve ends what was begun in the context of a caller who went away."""
    seen = []

    async def run(model: str, texts: list[str]) -> list[str]:
        seen.append(OF_A_CALLER.get())
        await asyncio.sleep(0)
        return texts

    made = Batcher(run, lambda done, a, b: done[a:b], max_texts=1, max_wait_s=9.0, texts_per_s=9.0)
    OF_A_CALLER.set("somebody")
    await asyncio.gather(*(made.submit("m", [text]) for text in "abc"))
    assert seen == ["", "", ""]


async def test_a_batch_that_is_ended_keeps_nobody_waiting():
    async def run(model: str, texts: list[str]) -> list[str]:
        raise asyncio.CancelledError

    made = Batcher(run, lambda done, a, b: done[a:b], max_texts=4, max_wait_s=9.0, texts_per_s=9.0)
    with pytest.raises(RunError, match="try again"):
        await asyncio.wait_for(made.submit("m", ["a"]), 5)


async def test_small_batches_raise_an_estimate_that_is_too_low():
    """Where only full ones did, an endpoint that refuses them would never know."""
    made = batcher(Encoder(), max_texts=64, texts_per_s=0.5)
    await made.submit("m", ["a"])
    assert made.texts_per_s > 0.5
