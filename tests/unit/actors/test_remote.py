"""Handles of actors whose process is lost: what they held is given again, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError

from red_ray.actors import remote
from red_ray.actors.remote import RestartedEncoder, RestartedExpert, RestartedRouter
from red_ray.errors import ForgottenError

ROWS = np.arange(3)
GONE = ActorUnavailableError("its process died", None)
NOT_BACK = ActorDiedError()
UNSEEN = ObjectLostError("0" * 56, None, "the answer was lost with its machine")


class FakeActor:
    """Has every method; fails calls as told, and remembers what reached its present process.

    Args:
        failures: by the number of the call, from 0.
    """

    def __init__(self, failures: dict[int, Exception] | None = None) -> None:
        self.failures = failures or {}
        self.n_calls = 0
        self.held: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Method(lambda *args: self._called(name, *args))

    async def _called(self, name: str, *args: Any) -> Any:
        number, self.n_calls = self.n_calls, self.n_calls + 1
        failure = self.failures.get(number)
        if failure is not UNSEEN and failure is not None:
            self.held.clear()  # with its process
            raise failure
        if not any(one[0] == "load" for one in self.held) and name not in ("load", "encode"):
            raise ForgottenError("load first")
        self.held.append((name, *args))
        if failure is UNSEEN:
            raise failure
        return f"{name} {number}"


class Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the handles would have slept."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(remote.asyncio, "sleep", sleep)
    return found


def names(actor: FakeActor) -> list[str]:
    return [one[0] for one in actor.held]


async def test_an_expert_is_given_its_vectors_when_it_asks_and_is_fitted_once(
    waited: list[float],
) -> None:
    actor = FakeActor()
    await RestartedExpert(actor, 0, "vectors").fit("rows")
    assert names(actor) == ["load", "fit"]
    assert waited == []


async def test_an_expert_that_was_lost_is_fitted_again_before_it_scores() -> None:
    actor = FakeActor({3: GONE})
    expert = RestartedExpert(actor, 0, "vectors")
    await expert.fit("rows")
    await expert.score(ROWS)
    assert names(actor) == ["load", "fit", "score"]


async def test_an_expert_that_was_lost_gets_its_tuned_vectors_before_it_is_fitted() -> None:
    actor = FakeActor({5: GONE})
    expert = RestartedExpert(actor, 0, "vectors")
    await expert.load_tuned("tuned")  # the first call: it holds nothing yet
    await expert.fit("rows")
    await expert.crossfit("rows", "fold 0", "fold 1")
    assert names(actor) == ["load", "load_tuned", "fit", "crossfit"]
    assert actor.held[-1] == ("crossfit", 0, "rows", "fold 0", "fold 1")


async def test_a_router_learns_again_what_it_learned_in_the_same_order() -> None:
    actor = FakeActor({6: GONE})
    router = RestartedRouter(actor, "vectors", ["a text"], ((0, 1),))
    await router.load()
    await router.calibrate("first")
    await router.follow_pool(ROWS)
    await router.learn("round 1")
    await router.learn("round 2")
    await router.calibrate("second")
    await router.view_pool("left")
    told = [one for one in actor.held if one[0] != "load"]
    assert told == [
        ("calibrate", "second"),
        ("follow_pool", ROWS),
        ("learn", "round 1"),
        ("learn", "round 2"),
        ("view_pool", "left"),
    ]


async def test_what_was_done_but_not_told_is_not_done_twice() -> None:
    """The answer to `learn` is lost: the router may have learned, and starts from nothing."""
    actor = FakeActor({3: UNSEEN})
    router = RestartedRouter(actor, "vectors", ["a text"], ((0, 1),))
    await router.load()
    await router.calibrate("rows")
    await router.follow_pool(ROWS)
    await router.learn("round 1")
    since_load = names(actor)[len(names(actor)) - names(actor)[::-1].index("load") :]
    assert since_load == ["calibrate", "follow_pool", "learn"]


async def test_what_a_handle_has_not_to_give_is_told_at_once(waited: list[float]) -> None:
    """The scores of a pool, say, are not kept: the loop has the pool weighed again."""
    unweighed = ForgottenError("weigh first")
    actor = FakeActor({2: unweighed, 5: unweighed})  # once more after load and calibrate
    router = RestartedRouter(actor, "vectors", ["a text"], ((0, 1),))
    await router.load()
    await router.calibrate("rows")
    with pytest.raises(ForgottenError):
        await router.view_pool("left")
    assert waited == []


async def test_a_machine_that_is_long_in_coming_is_waited_for(waited: list[float]) -> None:
    actor = FakeActor(dict.fromkeys(range(7), GONE))
    await RestartedEncoder(actor).encode(["a text"])
    assert waited == [1, 2, 4, 8, 16, 30, 30]


async def test_what_never_comes_back_is_not_waited_for_for_ever(waited: list[float]) -> None:
    actor = FakeActor(dict.fromkeys(range(99), GONE))
    with pytest.raises(ActorUnavailableError):
        await RestartedEncoder(actor).encode(["a text"])
    assert len(waited) == remote.RESTARTS


async def test_an_actor_that_was_ended_is_not_waited_for(waited: list[float]) -> None:
    actor = FakeActor({0: NOT_BACK})
    with pytest.raises(ActorDiedError):
        await RestartedEncoder(actor).encode(["a text"])
    assert waited == []
