"""The Ray Tune side of a sweep: trials, search, scheduler, and going on after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, cast

from ray import tune
from ray.exceptions import RayActorError, RayError, RayTaskError

from red_ray.actors import logs
from red_ray.actors.cluster import cause_of
from red_ray.actors.validator import RayValidator
from red_ray.actors.validator_pool import Account
from red_ray.config import JudgeConfig
from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, RunError, last_line
from red_ray.storage import writing
from red_ray.training.fleet import Validator
from red_ray.types import Question, Verdict
from tune.folder import RUNNING, STOPPED, TUNE, Place, Record, check_own, records_of
from tune.points import best_of, score
from tune.space import (
    Choice,
    Range,
    Setting,
    SweepConfig,
    asks_together,
    base_config,
    n_settings,
    setting_of,
)
from tune.trial import Shared, run_setting

SCORE = "score"

ROUND = 1
"""In which all settings ask."""

LOSSES = 5
"""So often trials are run again whose machine was lost."""

WORST = -4.0
"""Score of a setting that cannot be trained: below whatever misses the objective."""

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records hold what its files would
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would return as if the sweep had ended
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


def run_trials(sweep: SweepConfig, settings: Sequence[Setting], shared: Shared) -> None:
    """Run the settings that have not ended, as far as a scheduler lets them.

    Raises:
        RunError: settings failed that are worth another try.
        ConfigError: the search needs a package that is not installed.
    """
    os.environ.update(_QUIET)
    _quieten()
    _drop_what_records_deny(sweep, shared.place)
    trainable = tune.with_resources(
        tune.with_parameters(trial, shared=shared), {"cpu": sweep.cpus_per_trial}
    )
    state = str(shared.place.tune)
    if tune.Tuner.can_restore(state):
        check_own(shared.place.tune)
        tuner = tune.Tuner.restore(state, trainable, restart_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={"params": _tune_space(sweep, settings)},
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode="max",
                search_alg=_search(sweep),
                scheduler=_scheduler(sweep),
                num_samples=1 if settings else sweep.n_trials or 1,
                max_concurrent_trials=sweep.concurrent,
                reuse_actors=True,
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(name=TUNE, storage_path=str(shared.place.path), verbose=0),
        )
    results = _fitted(tuner)
    for _ in range(LOSSES):
        if not any(_was_lost(one.error) for one in results):
            break
        results = _fitted(tune.Tuner.restore(state, trainable, restart_errored=True))
    _close_records(sweep, results, shared.place, settings)


def _fitted(tuner: tune.Tuner) -> Any:
    try:
        with redirect_stdout(io.StringIO()):  # verbose=0 still prints two boxes
            return tuner.fit()
    except RayError as error:
        raise cause_of(error) from error


def _was_lost(error: Exception | None) -> bool:
    """Whether a trial ended with its process or its machine, and not by what it met."""
    return isinstance(error, RayActorError) and not isinstance(error, RayTaskError)


def settings_ended(sweep: SweepConfig, place: Place) -> list[Setting]:
    """The settings of the trials that Tune holds as ended and runs no more; a repeated one twice.

    Raises:
        ConfigError: another user may have written Tune's state.
    """
    if not any(place.tune.glob("experiment_state-*.json")):
        return []
    check_own(place.tune)
    _quieten()
    trials = tune.ExperimentAnalysis(str(place.tune)).trials
    ended = [one for one in trials if one.status == one.TERMINATED]
    return [setting_of(sweep, dict(one.config["params"])) for one in ended]


def _quieten() -> None:
    """Tune looks for files that our records stand in for, and warns."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _drop_what_records_deny(sweep: SweepConfig, place: Place) -> None:
    """Forget Tune's state where it holds a setting as ended that has no record: it was removed.

    Tune then takes all settings for new ones, and those that have ended return their records.
    """
    ended = settings_ended(sweep, place)
    records = {one.id: place.read(one.id) for one in ended}
    if None not in records.values():
        return
    for record in records.values():
        if record is not None and record.state == RUNNING:  # a scheduler stopped it
            place.write(record.with_state(STOPPED))
    with writing(place.tune):
        shutil.rmtree(place.tune)


def _folder_name(one: Any) -> str:
    """Tune's own holds all parameters, and may be longer than a disk allows."""
    return str(one.trial_id)


def _tune_space(sweep: SweepConfig, settings: Sequence[Setting]) -> Any:
    if settings:
        return tune.grid_search([dict(one.params) for one in settings])
    return {key: _tune_domain(domain) for key, domain in sweep.space.items()}


def _tune_domain(domain: Choice | Range) -> Any:
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    if domain.kind == "randint":
        return tune.randint(int(domain.low), int(domain.high) + 1)
    return getattr(tune, domain.kind)(domain.low, domain.high)


def _search(sweep: SweepConfig) -> Any:
    if sweep.search != "optuna":
        return None
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "search 'optuna' needs a package: pip install 'red-ray[optuna]'"
        ) from error
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return OptunaSearch(metric=SCORE, mode="max", seed=sweep.seed)


def _scheduler(sweep: SweepConfig) -> Any:
    if sweep.scheduler == "none":
        return None
    from ray.tune.schedulers import ASHAScheduler

    limit = sweep.space.get(
        "loop.max_iterations", Choice((base_config(sweep).loop.max_iterations,))
    )
    rounds = max(int(cast("int", value)) for value in limit.samples)
    return ASHAScheduler(
        # A report stands before the first round and one after the last: only rungs stop a setting.
        max_t=rounds + 3,
        grace_period=min(sweep.grace + 1, rounds + 1),
        reduction_factor=sweep.reduction,
    )


def _close_records(
    sweep: SweepConfig, results: Any, place: Place, settings: Sequence[Setting]
) -> None:
    """Say of what is left `running` that a scheduler stopped it.

    Raises:
        RunError: settings failed.
    """
    failed = {
        setting_of(sweep, dict(one.config["params"])).id: one.error
        for one in results
        if one.error is not None
    }
    records = records_of(place, settings)
    open_ones = [one for one in records if not one.has_ended]
    missing = len(settings) - len(records)
    for record in open_ones:
        if record.state == RUNNING and record.id not in failed:
            place.write(record.with_state(STOPPED))
    if failed or missing > 0:
        why = next((one.error for one in records if one.id in failed and one.error), "")
        n_failed = max(len(failed), missing)
        n_total = len(settings) or sweep.n_trials or 0
        told = last_line(next(iter(failed.values()), None) or "", "their processes died")
        raise RunError(
            f"{n_failed} of {n_settings(n_total)} failed ({why or told}); --resume tries them again"
        )


def trial(config: Mapping[str, Any], shared: Shared) -> None:
    """What Tune runs: one setting, in its process."""
    setting = setting_of(shared.sweep, dict(config["params"]))
    logs.begin(shared.place.path.name, actor=f"trial {setting.id}")

    def tell(record: Record) -> None:
        tune.report({SCORE: _score(record, shared.sweep)})

    tell(run_setting(setting, shared, tell))


def _score(record: Record, sweep: SweepConfig) -> float:
    if not record.points:
        return WORST
    return score(best_of(record.points, sweep.objective), sweep.objective)


class OneRound(RayValidator):
    """Asks in the same round whatever the setting and its own round.

    An answer that could not be read was paid for, and no other setting asks for it again; what
    failed for want of an answer is asked again, as the loop of each setting expects.
    """

    async def validate(self, questions: Sequence[Question], _: int) -> Sequence[Verdict]:
        """See `ValidatorPool.validate`."""
        return await super().validate(questions, ROUND)


@dataclass(frozen=True, slots=True)
class SharedPool:
    """The one pool of a judge that has words, over one ledger: no question is paid twice.

    It holds no handle: what Tune shares with its trials, this process keeps to its end.
    """

    account: Account

    def opened(self) -> RayValidator:
        """A user of the pool, who starts it where it is the first."""
        run = run_of(self.account.config)
        judge = OneRound(self.account, run, 0, examples=LabelledRows((), ()), hidden=None)
        judge.open()
        return judge

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Validator]:
        """A setting's user of the pool."""
        judge = await asyncio.to_thread(self.opened)
        try:
            yield judge
        except RayError as error:  # as Ray wraps it, it tells a whole traceback
            raise cause_of(error) from error
        finally:
            await asyncio.to_thread(judge.end)


def run_of(config: JudgeConfig) -> str:
    """Names a sweep's questions in the ledger: other limits of a request may bring an answer."""
    said = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return f"sweep-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def pool_of(sweep: SweepConfig, place: Place) -> SharedPool | None:
    """The pool of all settings; None where each has a judge of its own, or none."""
    base = base_config(sweep)
    if not asks_together(base):
        return None
    ledger = base.judge.ledger or str(place.ledger)
    return SharedPool(Account(base.judge, ledger, base.seed, run=place.path.name))
