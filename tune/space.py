"""What a sweep is: its YAML file, and the settings that it stands for."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from red_ray.config import Goal, RunConfig, all_keys, faults_of, load_config, merge, read_yaml
from red_ray.errors import ConfigError
from red_ray.judges.spec import WITHOUT_WORDS

Scalar = bool | int | float | str | None
Params = dict[str, Scalar]

MAX_DRAWS = 100
"""Draws for each setting of a random search: a small space may not hold so many different ones."""

FIXED = ("mode", "encoder", "text_column", "label_column", "max_chars", "audit", "router.goal")
"""Keys that no setting may differ in: rows are read and encoded once, and goals are swept apart."""

PER_SETTING = (
    "judge.spec",
    "judge.question",
    "judge.top_k",
    "judge.examples_per_candidate",
    "judge.gold_share",
)
"""Keys of a judge that settings may differ in; the others belong to the one whom all ask."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Scalar, ...]

    def draw(self, rng: np.random.Generator) -> Scalar:
        """Any of them, each as likely."""
        return self.values[int(rng.integers(len(self.values)))]

    @property
    def samples(self) -> tuple[Scalar, ...]:
        """Values that must all be valid."""
        return self.values


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`: `uniform`, `loguniform`, or whole ones by `randint`."""

    kind: str
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> Scalar:
        """A number of the range; of a whole one both ends may come."""
        if self.kind == "randint":
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "loguniform":
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    @property
    def samples(self) -> tuple[Scalar, ...]:
        """Values that must both be valid."""
        whole = self.kind == "randint"
        return (int(self.low), int(self.high)) if whole else (self.low, self.high)


Domain = Choice | Range
RANGES = ("uniform", "loguniform", "randint")


def _domain(given: Any) -> Domain:
    if isinstance(given, Choice | Range):
        return given
    if isinstance(given, list) and given and all(isinstance(v, Scalar) for v in given):
        return Choice(tuple(given))
    if isinstance(given, dict) and len(given) == 1 and next(iter(given)) in RANGES:
        return _range(*next(iter(given.items())))
    raise ValueError(f"give a list of values, or one of {', '.join(RANGES)} with [low, high]")


def _range(kind: str, ends: Any) -> Range:
    numbers = isinstance(ends, list) and len(ends) == 2
    if not numbers or not all(isinstance(e, int | float) and not isinstance(e, bool) for e in ends):
        raise ValueError(f"{kind} takes [low, high]")
    low, high = ends
    if low >= high or (kind == "loguniform" and low <= 0):
        above = "0 < low < high" if kind == "loguniform" else "low < high"
        raise ValueError(f"{kind} takes [low, high] with {above}")
    if kind == "randint" and not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError("randint takes whole numbers")
    return Range(kind, low, high)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Frozen):
    """Tables; relative to the sweep's file, with variables such as ${RED_RAY_DATA} filled in.

    The test rows are met once, by the setting that was chosen, as are the calibration rows, which
    set its thresholds.
    """

    train: Path
    pool: Path | None = None
    test: Path | None = None
    oos: Path | None = None
    calibration: Path | None = None
    calibration_oos: Path | None = None
    descriptions: Path | None = None

    @model_validator(mode="after")
    def _companions(self) -> Self:
        for name, needed in (("oos", "test"), ("calibration_oos", "calibration")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"{name} goes with {needed}: give {needed} too")
        return self


class Objective(_Frozen):
    """What makes one setting and goal better than another; exactly one key.

    `escalated_at_most`: the highest accuracy, with the judge's help, of those that escalate no
    more than this share. `accuracy_at_least`: the least share escalated of those that are so
    accurate with its help.
    """

    escalated_at_most: float | None = Field(default=None, ge=0, le=1)
    accuracy_at_least: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _states_one(self) -> Self:
        if (self.escalated_at_most is None) == (self.accuracy_at_least is None):
            raise ValueError("an objective is one of escalated_at_most and accuracy_at_least")
        return self


class SweepConfig(_Frozen):
    """A sweep.

    `config` are keys of the run's configuration that all settings share, `space` dotted ones with
    the values to try. `goals` are swept within each setting, at no refit. A judge that is asked at
    prediction time is assumed right with `assumed_judge_accuracy`. `grace` and `reduction` are
    ASHA's: rounds of the loop before it stops a setting, and one in how many goes on. `seed`
    draws the settings; the runs have their own in `config`.
    """

    data: DataConfig
    config: dict[str, Any] = {}
    space: dict[str, Annotated[Domain, BeforeValidator(_domain)]] = Field(min_length=1)
    search: Literal["grid", "random", "optuna"] = "grid"
    n_trials: int | None = Field(default=None, ge=1)
    seed: int = Field(default=42, ge=0)
    scheduler: Literal["none", "asha"] = "none"
    grace: int = Field(default=2, ge=1)
    reduction: int = Field(default=3, ge=2)
    goals: tuple[Goal, ...] = ()
    assumed_judge_accuracy: float = Field(default=0.9, ge=0, le=1)
    objective: Objective = Objective(escalated_at_most=0.2)
    concurrent: int | None = Field(default=None, ge=1)
    cpus_per_trial: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        drawn = self.search != "grid"
        if drawn and self.n_trials is None:
            raise ValueError(f"search {self.search!r} needs n_trials")
        if not drawn and self.n_trials is not None:
            raise ValueError("a grid tries everything: drop n_trials, or set search to random")
        ranges = [key for key, domain in self.space.items() if isinstance(domain, Range)]
        if not drawn and ranges:
            raise ValueError(f"a grid takes lists, and {ranges[0]!r} is a range: search at random")
        return self

    @property
    def varied(self) -> tuple[str, ...]:
        """The keys in which settings differ."""
        return tuple(
            key for key, domain in self.space.items() if len(dict.fromkeys(domain.samples)) > 1
        )


@dataclass(frozen=True)
class Setting:
    """One configuration to try.

    Attributes:
        params: what makes it, by dotted key.
        config: resolved.
    """

    params: Params
    config: RunConfig

    @cached_property
    def id(self) -> str:
        """The same for the same configuration, in every process."""
        content = json.dumps(self.config.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep's file, and check every value of its space.

    Raises:
        ConfigError: it cannot be read, holds an unknown key, or a value does not fit.
    """
    given = read_yaml(path)
    if isinstance(given.get("data"), dict):
        folder = path.resolve().parent
        given["data"] = {key: _place(key, value, folder) for key, value in given["data"].items()}
    try:
        sweep = SweepConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {faults_of(error, _sweep_keys())}") from error
    _check(sweep)
    return sweep


def setting_of(sweep: SweepConfig, params: Params) -> Setting:
    """The setting that `params` make.

    Raises:
        ConfigError: a value does not fit.
    """
    nested: dict[str, Any] = {}
    for key, value in params.items():
        *parents, last = key.split(".")
        place = reduce(lambda inner, parent: inner.setdefault(parent, {}), parents, nested)
        place[last] = value
    return Setting(params, load_config(None, merge(sweep.config, nested)))


def base_config(sweep: SweepConfig) -> RunConfig:
    """What all settings share; of what they differ in, the defaults."""
    return load_config(None, sweep.config)


def n_settings(n: int) -> str:
    """So many, in words."""
    return "1 setting" if n == 1 else f"{n} settings"


def asks_together(base: RunConfig) -> bool:
    """Whether all settings ask one judge over one ledger; one without words is a setting's own."""
    spec = base.judge.spec
    return spec is not None and spec.partition(":")[0] not in WITHOUT_WORDS


def known_settings(sweep: SweepConfig) -> tuple[Setting, ...]:
    """All settings of a grid or a random search, no two the same; none where Optuna draws."""
    if sweep.search == "optuna":
        return ()
    drawn = _grid(sweep) if sweep.search == "grid" else _random(sweep)
    return tuple({one.id: one for one in drawn}.values())


def confidences_of(sweep: SweepConfig) -> tuple[float, ...]:
    """Every confidence, or both ends of its range, that the promises of a setting may have."""
    domain = sweep.space.get("router.confidence")
    given = domain.samples if domain else (base_config(sweep).router.confidence,)
    return tuple(float(cast("float", one)) for one in given)


def _grid(sweep: SweepConfig) -> list[Setting]:
    values = (domain.samples for domain in sweep.space.values())
    return [
        setting_of(sweep, dict(zip(sweep.space, chosen, strict=True)))
        for chosen in itertools.product(*values)
    ]


def _random(sweep: SweepConfig) -> list[Setting]:
    rng = np.random.default_rng([sweep.seed, 0])
    wanted, found = sweep.n_trials or 0, dict[str, Setting]()
    for _ in range(MAX_DRAWS * wanted):
        if len(found) == wanted:
            break
        one = setting_of(sweep, {key: domain.draw(rng) for key, domain in sweep.space.items()})
        found.setdefault(one.id, one)
    return list(found.values())


def _check(sweep: SweepConfig) -> None:
    base = base_config(sweep)
    if base.router.goal is not None:
        raise ConfigError("config.router.goal: a sweep takes its goals from the key `goals`")
    if any(goal.none_recall is not None for goal in sweep.goals):
        raise ConfigError(
            "goals: none_recall needs texts that fit no label, and settings are ranked on training "
            "rows, which have none; drop it, and give it to `red-ray thresholds` afterwards"
        )
    for key, domain in sweep.space.items():
        _check_key(key)
        for value in domain.samples:
            setting_of(sweep, {key: value})
    if base.judge.paraphrases:
        raise ConfigError(
            "config.judge.paraphrases: the settings of a sweep look at texts that were encoded "
            "before it, and what a judge writes is none of them; set it to 0"
        )
    specs = [base.judge.spec, *_values(sweep, "judge.spec")]
    if sweep.scheduler == "asha" and not any(specs):
        raise ConfigError(
            "scheduler 'asha' stops settings between the rounds of the loop, and without a judge "
            "there are none: set judge.spec in `config`, or scheduler to none"
        )
    in_words = [spec for spec in specs if spec and spec.partition(":")[0] not in WITHOUT_WORDS]
    if in_words and "judge.spec" in sweep.space:
        raise ConfigError(
            f"space judge.spec: {in_words[0]!r} is asked by all settings over one ledger; put it "
            "in `config`, and make a sweep for each judge"
        )


def _values(sweep: SweepConfig, key: str) -> tuple[str | None, ...]:
    domain = sweep.space.get(key)
    return cast("tuple[str | None, ...]", domain.samples) if domain else ()


def _check_key(key: str) -> None:
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
        why = "goals are swept by `goals`" if "goal" in key else "rows are read and encoded once"
        raise ConfigError(f"space: {key!r} cannot be swept, as {why}")
    known = all_keys(RunConfig)
    parents = {one.rpartition(".")[0] for one in known}
    if key not in known or key in parents:
        near = difflib.get_close_matches(key, [one for one in known if one not in parents], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"space: unknown configuration key {key!r}{hint}")
    if key.startswith("judge.") and key not in PER_SETTING:
        raise ConfigError(f"space: {key!r} belongs to the judge whom all ask; put it in `config`")


def _place(key: str, value: Any, folder: Path) -> Any:
    """A path of the file with its variables filled in, relative to the file's folder."""
    if not isinstance(value, str):
        return value
    filled = os.path.expandvars(os.path.expanduser(value))
    if "$" in filled:
        raise ConfigError(f"data.{key}: a variable in {value!r} is not set in the environment")
    return folder / filled


def _sweep_keys() -> list[str]:
    return [
        *all_keys(SweepConfig),
        *(f"goals.{n}.{key}" for n in range(9) for key in all_keys(Goal)),
    ]
