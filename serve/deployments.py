"""The endpoint on Ray Serve: `serve run serve.deployments:build run=runs/tickets`, or config.yaml.

A few lines around plain classes: `Classifier` (the ingress, as many replicas as wanted), `Desk`
(one) and, where the layout is sharded, the expert shards.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from red_ray.actors import logs
from red_ray.actors.cluster import cause_of, raised_by_worker
from red_ray.actors.environment import CALLS_PER_REPLICA, LOCAL_PORTS
from red_ray.actors.metrics import REFRESH_S, Meter
from red_ray.actors.validator import RayValidator
from red_ray.actors.validator_pool import Account
from red_ray.address import is_address, name_of
from red_ray.bundle import load_experts
from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, JudgeUnavailable, RedRayError, RunError, last_line
from red_ray.escalation import asked_in
from red_ray.experts import Expert
from red_ray.judges import PoolStats
from red_ray.judges.ledger import Review
from red_ray.types import Question, Verdict
from serve import desk, rates
from serve.app import make_app
from serve.gate import check_is_loopback, tokens_of_environment
from serve.loaded import run_at
from serve.metering import ReplicaMeter, tell_escalation
from serve.schemas import Feedback, Queue, Stats
from serve.scoring import PackedScorer, Scorer, ShardedScorer
from serve.service import Service
from serve.settings import ServeSettings, parse_settings

Floats = NDArray[np.float32]

_log = logging.getLogger(__name__)

APP = "red_ray"
"""Name of the Serve application."""

CLASSIFIER, DESK, SHARD = "Classifier", "Desk", "Shard"

MAX_QUEUED = 128
"""Calls that wait for a replica which has `CALLS_PER_REPLICA` already. It refuses by itself what
would wait for longer than `limits.wait_s`; this bounds what it does not get to see."""

DESK_S, REPORT_S = 5.0, 2.0
"""How long a replica waits for the desk; a report is made again. Without an end it would wait for
ever where the desk is gone, as it is when all of the endpoint ends."""

SHARD_S = 60.0
"""How long a replica waits for a shard, which may have to read a bundle first."""

BUNDLES_KEPT = 2
"""Of a shard: while a newer bundle is taken over, replicas ask for both."""


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application; see `serve/config.yaml`.

    Raises:
        ConfigError: a key is unknown or a value does not fit.
    """
    # Ray would make a model of them by the annotation, but not by one that is a string as here.
    return application(parse_settings(args))


def application(
    settings: ServeSettings,
    *,
    replicas: int | None = None,
    num_cpus: float | None = None,
    starts: int | None = None,
) -> serve.Application:
    """The deployments of an endpoint, bound together.

    Args:
        settings: of the endpoint.
        replicas: of the classifier; None leaves what the deployment says.
        num_cpus: logical processors of each; None: one for each thread of the encoder.
        starts: so many failures to start one fail the deployment; None: as Serve has it.
    """
    cpus = settings.threads if num_cpus is None else num_cpus
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": cpus}}
    if replicas is not None:
        options["num_replicas"] = replicas
    if starts is not None:
        options["max_constructor_retry_count"] = starts
    n_shards = settings.shards if settings.layout == "sharded" else 0
    shards = [
        ShardDeployment.options(name=f"{SHARD}-{at}").bind(at, n_shards) for at in range(n_shards)
    ]
    classifier = ClassifierDeployment.options(**options)
    bound: serve.Application = classifier.bind(settings, DeskDeployment.bind(settings), *shards)
    return bound


class Desk(desk.Desk):
    """The endpoint's desk; its judges' pools are actors, which training and sweeps share."""

    def __init__(self, settings: ServeSettings) -> None:
        _listen_here()
        logs.begin(_name(settings.run), actor=DESK)
        super().__init__(settings, open_actor)
        self._told_at = -math.inf

    async def report(
        self, run: str, snapshot: rates.Snapshot, reviews: Sequence[Review]
    ) -> desk.News:
        """See `serve.desk.Desk.report`; tells Prometheus of the escalations, too."""
        news = await super().report(run, snapshot, reviews)
        if self._clock() - self._told_at >= REFRESH_S:
            self._told_at = self._clock()
            # On a thread: the band of a promise may take some milliseconds.
            rate = await asyncio.to_thread(self._rates.escalation, snapshot.promised)
            tell_escalation(Meter(run=_name(run)), rate)
        return news

    async def __del__(self) -> None:
        """Serve awaits it when the replica ends."""
        with suppress(RedRayError, RayError):
            await self.close()


class ActorValidator:
    """A validator pool actor; see `serve.desk.Validator`."""

    def __init__(self, validator: RayValidator) -> None:
        self._validator = validator
        self.judge_name = validator.judge_name

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """See `Validator.validate`."""
        return await self._validator.validate(questions, round_number)

    async def stats(self) -> PoolStats | None:
        """See `Validator.stats`."""
        return await self._validator.stats()

    async def close(self) -> None:
        """See `Validator.close`."""
        await asyncio.to_thread(self._validator.close)


async def open_actor(opening: desk.Opening) -> desk.Validator:
    """Open a judge's pool actor.

    Raises:
        RedRayError: the judge is unknown, or asked by others with other limits.
    """
    validator = await asyncio.to_thread(_opened, opening)
    return ActorValidator(validator)


def _opened(opening: desk.Opening) -> RayValidator:
    config, model = opening.config, opening.model
    n_known = model.n_seed or len(model.example_texts)  # else the judge's: there are no others
    n_seed = n_known if config.judge.spec == "neighbours" else 0
    names = tuple(model.labels[label] for label in model.example_labels[:n_seed])
    account = Account(config.judge, opening.ledger, config.seed, run=_name(opening.place))
    examples = LabelledRows(model.example_texts[:n_seed], names)
    run = asked_in(config.judge)
    validator = RayValidator(account, run, 0, examples=examples, hidden=opening.truth)
    try:
        validator.open()
    except RayError as error:
        validator.end()
        raise cause_of(error) from error
    return validator


class RemoteDesk:
    """The desk, as a replica asks it; see `serve.service.AsksAll`."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._meter = ReplicaMeter()

    async def open(self, run: str) -> str:
        """See `Desk.open`."""
        return str(await self._call("open", run))

    async def validate(self, run: str, questions: Sequence[Question]) -> list[Verdict]:
        """See `Desk.validate`."""
        return list(await self._call("validate", run, questions))

    async def feedback(self, run: str, answers: Sequence[Feedback], labels: Sequence[str]) -> int:
        """See `Desk.feedback`."""
        return int(await self._soon("feedback", run, answers, labels))

    async def queue(self, run: str, limit: int) -> Queue:
        """See `Desk.queue`."""
        found: Queue = await self._soon("queue", run, limit)
        return found

    async def report(
        self, run: str, snapshot: rates.Snapshot, reviews: Sequence[Review]
    ) -> desk.News:
        """See `Desk.report`; tells Prometheus, too."""
        self._meter.tell(_name(run), snapshot)
        found: desk.News = await self._soon("report", run, snapshot, reviews, wait_s=REPORT_S)
        return found

    async def stats(self, run: str, promised: rates.Promised | None) -> Stats:
        """See `Desk.stats`."""
        found: Stats = await self._soon("stats", run, promised)
        return found

    async def _soon(self, name: str, *args: object, wait_s: float = DESK_S) -> Any:
        try:
            return await asyncio.wait_for(self._call(name, *args), wait_s)
        except TimeoutError as error:
            raise JudgeUnavailable(f"the endpoint's desk did not answer in {wait_s:g} s") from error

    async def _call(self, name: str, *args: object) -> Any:
        try:
            return await getattr(self._handle, name).remote(*args)
        except (RayError, RayServeException) as error:
            told = f"the endpoint's desk does not answer ({last_line(error)})"
            raise raised_by_worker(error) or JudgeUnavailable(told) from error


class Shard:
    """Every n-th expert of a bundle; see `serve.scoring.Shard`.

    Args:
        position: of this shard.
        n_shards: of all of them.
    """

    def __init__(self, position: int, n_shards: int) -> None:
        _listen_here()
        logs.begin("", actor=f"{SHARD}-{position}")
        self._position = position
        self._n_shards = n_shards
        self._bundles: OrderedDict[str, tuple[Expert, ...]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shard")

    async def score(
        self, bundle: tuple[str, str], texts: Sequence[str], vectors: Floats
    ) -> list[Floats]:
        """What each of its experts makes of the texts."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._scored, bundle, texts, vectors)

    def _scored(
        self, bundle: tuple[str, str], texts: Sequence[str], vectors: Floats
    ) -> list[Floats]:
        del texts  # these experts look at the vectors alone
        return [expert.score(vectors) for expert in self._experts(*bundle)]

    def _experts(self, bundle_id: str, folder: str) -> tuple[Expert, ...]:
        if bundle_id not in self._bundles:
            path = run_at(folder).bundle if is_address(folder) else Path(folder)
            experts = load_experts(path, bundle_id, self._position, self._n_shards)
            self._bundles[bundle_id] = experts
            while len(self._bundles) > BUNDLES_KEPT:
                self._bundles.popitem(last=False)
        self._bundles.move_to_end(bundle_id)
        return self._bundles[bundle_id]


class RemoteShard:
    """A shard, as a replica asks it."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def score(
        self, bundle: tuple[str, str], texts: Sequence[str], vectors: Floats
    ) -> list[Floats]:
        """See `serve.scoring.Shard.score`."""
        try:
            asked = self._handle.score.remote(bundle, list(texts), vectors)
            scores: list[Floats] = await asyncio.wait_for(asked, SHARD_S)
        except (RayError, RayServeException, TimeoutError) as error:
            told = RunError(f"a shard of the endpoint does not answer ({last_line(error)})")
            raise raised_by_worker(error) or told from error
        return scores


class Classifier:
    """The ingress: one replica of the endpoint.

    Args:
        settings: of the endpoint.
        desk_handle: the desk's.
        shards: where the layout is sharded, the experts'.

    Raises:
        ConfigError: other machines could call it without a token.
        RedRayError: it cannot answer from the run.
    """

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self,
        settings: ServeSettings,
        desk_handle: DeploymentHandle[Any],
        *shards: DeploymentHandle[Any],
    ) -> None:
        _listen_here()
        logs.begin(_name(settings.run), actor=CLASSIFIER)
        self._tokens = tokens_of_environment()
        if not self._tokens:
            check_is_loopback(_http_host())
        thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        scorer: Scorer = PackedScorer(thread)
        if shards:
            scorer = ShardedScorer(thread, [RemoteShard(handle) for handle in shards])
        self._service = Service(settings, RemoteDesk(desk_handle), thread, scorer)
        # Here already: where the application's own start fails, Serve does not tell why.
        await self._service.follow(settings.run)

    def __serve_build_asgi_app__(self) -> Any:
        """What Serve runs: the application over this replica's service."""
        return make_app(self._service, self._tokens, tells_request_id=False)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Follow another run, as `user_config: {run: …}` of a new deployment says."""
        if unknown := set(user_config) - {"run"}:
            raise ConfigError(f"user_config has only `run`, found {sorted(unknown)!r}")
        if "run" in user_config:
            await self._service.follow(str(user_config["run"]))

    async def check_health(self) -> None:
        """Serve starts a replica again that fails this."""


def _name(run: str) -> str:
    """A run's name in metrics and logs: of its folder, or the link to it; never a secret."""
    if is_address(run):
        return name_of(run)
    return Path(run).absolute().name


def _listen_here() -> None:
    """Let this replica's port for calls of other deployments be of this machine alone.

    Only where Ray's own ports are (see `prepare_environment`): Serve opens it on all interfaces,
    after our constructor, and has no setting for it. What listens where, a test holds.
    """
    if os.environ.get(LOCAL_PORTS) != "0":
        return
    replica: Any = importlib.import_module("ray.serve._private.replica")
    opens = replica.add_port_to_grpc_server

    def opens_here(server: object, address: str) -> int:
        return int(opens(server, address.replace("[::]", "127.0.0.1")))

    replica.add_port_to_grpc_server = opens_here


def _http_host() -> str:
    """Where Serve listens; on the machine itself unless it is known to be otherwise."""
    from ray.serve.context import _get_global_client  # no public call tells it

    client = _get_global_client(raise_if_no_controller_running=False)
    return "0.0.0.0" if client is None else str(client.http_config.host)


# Untyped: Serve says that `deployment` gives back a decorator, which it does without a class.
_deployment: Any = serve.deployment

DeskDeployment = _deployment(
    Desk,
    name=DESK,
    num_replicas=1,
    max_ongoing_requests=10_000,
    ray_actor_options={"num_cpus": 0},
)
ShardDeployment = _deployment(Shard, name=SHARD, max_ongoing_requests=64, max_surge_percent=100)
ClassifierDeployment = _deployment(
    serve.ingress()(Classifier),
    name=CLASSIFIER,
    max_ongoing_requests=CALLS_PER_REPLICA,
    max_queued_requests=MAX_QUEUED,
    backpressure_config={"status_code": 503, "retry_after_s": 1},
    graceful_shutdown_timeout_s=20,
    max_surge_percent=100,
)
