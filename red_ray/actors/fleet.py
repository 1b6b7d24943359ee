"""Workers as actors of a Ray cluster, named so that the dashboard says what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from red_ray.actors.cluster import cause_of, fetch, room, start_actor
from red_ray.actors.encoder import EncoderActor
from red_ray.actors.expert import ExpertActor
from red_ray.actors.packing import encoder_places, experts_per_actor
from red_ray.actors.remote import Remote, RestartedEncoder, RestartedExpert, RestartedRouter
from red_ray.actors.router import RouterActor
from red_ray.config import RunConfig
from red_ray.core.partition import Subsets
from red_ray.encoding import EncoderSpec, PairedEncoder, TunedWeights, TuningRows, tune_once
from red_ray.experts import ExpertSpec
from red_ray.model import RedModel, TextEncoder
from red_ray.training.fleet import Crew, ExpertHandle, RouterHandle
from red_ray.training.reduction import umap_reduce

Floats = NDArray[np.float32]

EXPERT_CPUS = 0.05
"""A share that lets 16 experts, the router and an encoder start on two processors."""

ENCODER_CPUS = 0.5

TUNING_CPUS = 0.25
"""A share, for the same reason: no more are under way than there are processors."""

PARTITIONS = 3
"""So many a run opens at most, those that `auto` tries among them."""


class RayEncoder:
    """The encoder actors, for code that is not asynchronous (the scorecard)."""

    def __init__(self, actors: Sequence[Any], weights: TunedWeights | None = None) -> None:
        self._actors = list(actors)
        self._weights = weights

    def encode(self, texts: Sequence[str]) -> Floats:
        """Shape (n_texts, dim), unit length."""
        shares = _shares(texts, len(self._actors))
        pairs = zip(self._actors, shares, strict=False)
        try:
            if self._weights is None:
                return _joined(fetch([actor.encode.remote(share) for actor, share in pairs]))
            held = ray.put(self._weights)
            return _joined(fetch([a.encode_tuned.remote(share, held) for a, share in pairs]))
        except RayError as error:
            raise cause_of(error) from error

    @property
    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return cast("EncoderSpec", fetch(self._actors[0].spec.remote()))


class RayFleet:
    """Places the workers of a run on the cluster that this process is connected to."""

    def __init__(self, config: RunConfig, run: str = "") -> None:
        """Start the encoder actors; the others follow when the partition is known.

        Args:
            config: of the run.
            run: its name, for the logs.
        """
        self._run = run
        has = room()
        self._places = places = encoder_places(n_cpus=has.n_cpus, n_gpus=has.n_gpus)
        self._n_tunings = has.n_gpus or max(1, int(has.n_cpus))
        self._encoders = [
            start_actor(
                EncoderActor,
                config.encoder,
                places.n_threads,
                run,
                name=f"encoder-{number:02d}",
                num_cpus=ENCODER_CPUS,
                num_gpus=places.gpus,
                scheduling_strategy="SPREAD",
                max_restarts=-1,
                max_task_retries=-1,  # an encoder holds no state
            )
            for number in range(places.n_encoders)
        ]
        self._placed: list[Any] = []
        self._generation = 0
        self._held: tuple[Floats, Any] | None = None

    def encoder_of(self, model: RedModel) -> TextEncoder:
        """The encoder of a model that was trained here, for code that is not asynchronous."""
        plain = RayEncoder(self._encoders)
        if model.tuned is None:
            return plain
        return PairedEncoder(plain, RayEncoder(self._encoders, model.tuned))

    @cached_property
    def _tunings(self) -> asyncio.Semaphore:
        """So many at once; of the process that leads the run, as it cannot be sent."""
        return asyncio.Semaphore(self._n_tunings)

    def begin_again(self) -> None:
        """Forget a coordinator that was lost, and its workers with it."""
        self._generation += PARTITIONS

    def end(self) -> None:
        """End the encoder actors of a run that failed."""
        for actor in self._encoders:
            ray.kill(actor)

    async def encode(self, texts: Sequence[str]) -> Floats:
        """See `Fleet.encode`."""
        shares = _shares(texts, len(self._encoders))
        pairs = zip(self._encoders, shares, strict=False)
        parts = await asyncio.gather(*(RestartedEncoder(a).encode(share) for a, share in pairs))
        # Copied even where there is one: the object store keeps a part as long as it is used.
        return np.concatenate(parts)

    async def tune(self, config: RunConfig, rows: TuningRows, name: str) -> TunedWeights:
        """See `Fleet.tune`; on a card where the encoders have one, else on the processors."""
        held = ray.put(rows)
        async with self._tunings:
            if self._places.gpus:
                self._encoders.append(self._encoders.pop(0))  # each in turn
                encoder = RestartedEncoder(self._encoders[-1])
                return await encoder.tune(held, config.setfit, config.seed)
            tuning: Any = tune_once
            task = ray.remote(max_calls=1)(tuning)  # its process ends with its memory
            options = task.options(
                num_cpus=TUNING_CPUS,
                name=f"fine-tune: {name}",
                scheduling_strategy="SPREAD",
                max_retries=-1,  # it holds no state, and what was done is in the store
            )
            reference = options.remote(config.encoder, held, config.setfit, seed=config.seed)
            weights: TunedWeights = await reference
            return weights

    async def encode_tuned(
        self, config: RunConfig, texts: Sequence[str], weights: TunedWeights
    ) -> Floats:
        """See `Fleet.encode_tuned`."""
        del config  # the encoder actors have it
        held, shares = ray.put(weights), _shares(texts, len(self._encoders))
        pairs = zip(self._encoders, shares, strict=False)
        encoded = (RestartedEncoder(a).encode_tuned(share, held) for a, share in pairs)
        return np.concatenate(await asyncio.gather(*encoded))

    async def encoder_spec(self) -> EncoderSpec | None:
        """See `Fleet.encoder_spec`."""
        return cast("EncoderSpec", await Remote(self._encoders[0]).spec())

    async def reduce(self, embeddings: Floats, n_dims: int, seed: int) -> Floats:
        """See `Fleet.reduce`."""
        task: Any = ray.remote(max_calls=1)(umap_reduce)  # its process, half a GB, ends with it
        reduced: Floats = await task.options(
            num_cpus=0, name=f"umap: {len(embeddings)} labels"
        ).remote(embeddings, n_dims, seed)
        return reduced

    async def open(
        self,
        config: RunConfig,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        specs: Sequence[ExpertSpec],
        gate: ExpertSpec | None,
    ) -> Crew:
        """See `Fleet.open`."""
        for actor in self._placed:
            ray.kill(actor)
        self._placed = []
        self._generation += 1
        shared = self._shared(vectors)
        gates = self._place([gate], 1, shared) if gate else []
        per_actor = _per_actor(config, len(specs))
        experts = self._place(specs, per_actor, shared)
        n_labels = sum(len(subset) for subset in subsets)
        router = start_actor(
            RouterActor,
            config,
            n_labels,
            self._run,
            name=self._unique("router"),
            num_cpus=EXPERT_CPUS,
            max_restarts=-1,
        )
        self._placed.append(router)
        handle = RestartedRouter(router, shared, texts, subsets)
        await handle.load()
        return Crew(
            experts=tuple(cast("list[ExpertHandle]", experts)),
            gate=cast("ExpertHandle", gates[0]) if gates else None,
            router=cast("RouterHandle", handle),
            shared=ray.put,
        )

    def _shared(self, vectors: Floats) -> Any:
        """Reference to the vectors in the object store, which holds them once."""
        if self._held is None or self._held[0] is not vectors:
            self._held = vectors, ray.put(np.ascontiguousarray(vectors))
        return self._held[1]

    def _place(
        self, specs: Sequence[ExpertSpec], per_actor: int, shared: Any
    ) -> list[RestartedExpert]:
        handles = []
        for start in range(0, len(specs), per_actor):
            group = list(specs[start : start + per_actor])
            placed = start_actor(
                ExpertActor,
                group,
                self._run,
                name=self._unique(" + ".join(spec.name for spec in group)),
                num_cpus=EXPERT_CPUS,
                scheduling_strategy="SPREAD",
                max_restarts=-1,
            )
            self._placed.append(placed)
            handles += [RestartedExpert(placed, position, shared) for position in range(len(group))]
        return handles

    def _unique(self, name: str) -> str:
        """A killed actor's name is not free at once: later partitions carry their number."""
        return name if self._generation == 1 else f"{name} ({self._generation})"


def _per_actor(config: RunConfig, n_experts: int) -> int:
    has = room()
    return experts_per_actor(
        n_experts,
        n_nodes=has.n_nodes,
        n_cpus=has.n_cpus,
        free_bytes=has.free_bytes,
        wanted=config.expert.per_actor,
    )


def _shares(texts: Sequence[str], n: int) -> list[list[str]]:
    """Cut into at most `n` near-equal lists."""
    size = max(1, -(-len(texts) // n))
    return [list(texts[start : start + size]) for start in range(0, len(texts), size)] or [[]]


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
