"""A loop whose router loses its process between any two calls comes to the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from red_ray.actors.remote import RestartedRouter
from red_ray.training import LocalFleet, router_host
from red_ray.training.fleet import Crew
from red_ray.training.router_host import RouterHost
from tests.unit.training.fakes import Corpus, FakeEncoder, fingerprint
from tests.unit.training.test_bounded_memory import trained


class Mortal:
    """A router actor that is another process, which holds nothing, for every n-th call.

    Args:
        arguments: of the router.
        every: n; larger than what a new process must be told again.
    """

    def __init__(self, *arguments: Any, every: int) -> None:
        self._arguments = arguments
        self._every = every
        self._n_calls = 0
        self._host = RouterHost(*arguments)
        self.n_deaths = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Method(self, name)

    async def call(self, name: str, *args: Any) -> Any:
        self._n_calls += 1
        if self._n_calls % self._every == 0:
            self._host, self.n_deaths = RouterHost(*self._arguments), self.n_deaths + 1
        return getattr(self._host, name)(*args)


class Method:
    def __init__(self, actor: Mortal, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *args: Any) -> Any:
        return self._actor.call(self._name, *args)


class MortalFleet(LocalFleet):
    """Threads, but for the router."""

    every: int
    router: Mortal

    async def open(self, config, vectors, texts, subsets, specs, gate) -> Crew:  # type: ignore[no-untyped-def]
        crew = await super().open(config, vectors, texts, subsets, specs, gate)
        self.router = Mortal(config, sum(map(len, subsets)), every=self.every)
        handle = RestartedRouter(self.router, vectors, texts, subsets)
        return replace(crew, router=handle)


@pytest.mark.parametrize("every", [11, 13, 17])
@pytest.mark.parametrize("kept_cells", [0, 2**24])
def test_a_router_that_is_lost_changes_nothing(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, every: int, kept_cells: int
) -> None:
    monkeypatch.setattr(router_host, "KEPT_CELLS", kept_cells)
    usual = trained(corpus)
    fleet = MortalFleet(FakeEncoder())
    fleet.every = every
    lost = trained(corpus, fleet)
    assert fleet.router.n_deaths > 0
    assert fingerprint(lost, corpus) == fingerprint(usual, corpus)
