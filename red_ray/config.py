"""The configuration of a run: one frozen model, the same for every command.

A default stands on its field and nowhere else; YAML and the command line hold only what
differs. Secrets never stand here: a judge's key is named by its environment variable.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from red_ray.address import holds_secret, is_address
from red_ray.address import shown as shown_address
from red_ray.errors import ConfigError

Mode = Literal["speed", "balanced", "accuracy"]
ExpertKind = Literal["logistic_regression", "random_forest", "setfit"]

LESS_IS_BETTER = ("unreadable_rate", "p95_latency_s", "usd_per_correct")
"""The criteria of an audit that a judge meets by staying below them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _place(given: object) -> object:
    """A path as it is written elsewhere, or an address as it is given."""
    if isinstance(given, Path) or (isinstance(given, str) and not is_address(given)):
        return str(Path(given))
    if isinstance(given, str) and holds_secret(given):
        raise ValueError(
            f"{shown_address(given)!r} was given with a password or a key, and config.yaml would "
            "keep it; leave it out and set the variables or the file that its file system reads"
        )
    return given


class EncoderConfig(_Frozen):
    """How texts become vectors.

    `store` is a folder or an address (see `red_ray.address`); None: RED_RAY_CACHE, else the user's
    cache folder.
    """

    model: str = "all-MiniLM-L6-v2"
    revision: str | None = None
    truncate_dim: int | None = Field(default=None, gt=0)
    prompt: str = ""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    max_tokens: int = Field(default=256, gt=0)
    store: Annotated[str | Path | None, BeforeValidator(_place)] = None


class PartitionConfig(_Frozen):
    """How labels are cut into subsets."""

    strategy: Literal["similar", "dissimilar", "random", "auto"] = "similar"
    subset_size: int = Field(default=8, ge=2)
    umap_dim: int | None = Field(default=None, gt=1)  # None: no reduction


class ExpertConfig(_Frozen):
    """What an expert is."""

    kind: ExpertKind = "logistic_regression"
    per_actor: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


class SetFitConfig(_Frozen):
    """How an encoder is fine-tuned, where `expert.kind` is `setfit`.

    Only the last `layers` are. `epochs` is how often each row is drawn, on average, within
    `min_steps` and `max_steps` of `labels_per_batch` x `texts_per_label` texts: the time of a
    fine-tuning is bounded, whatever the number of labels. `early_stop` watches the rows that are
    held back first, and all other fine-tunings take as many of their steps as were best for these.
    """

    early_stop: bool = False
    layers: int = Field(default=3, ge=1)
    epochs: float = Field(default=10.0, gt=0)
    min_steps: int = Field(default=60, ge=1)
    max_steps: int = Field(default=400, ge=1)
    labels_per_batch: int = Field(default=16, ge=2)
    texts_per_label: int = Field(default=4, ge=2)
    learning_rate: float = Field(default=5e-5, gt=0)
    temperature: float = Field(default=0.1, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class NoiseConfig(_Frozen):
    """Which rows of other subsets an expert learns as noise.

    `factor` None takes all of them up to `cap`; a number takes that many times the expert's
    own rows, as the reference does.
    """

    cap: int = Field(default=4000, gt=0)
    factor: float | None = Field(default=None, gt=0)


class Goal(_Frozen):
    """What the router must keep, as shares; the thresholds follow from it.

    `catch_errors`: of the texts that the model alone would get wrong, at least this share is
    escalated. `precision`: of those it answers alone, at least this share is right.
    `escalate_at_most`: of all texts. `none_false_alarm`: of the texts that fit a label, at most
    this share is said to fit none. `none_recall`: of the texts that fit none, at least this share
    is said to.
    """

    catch_errors: float | None = Field(default=None, gt=0, lt=1)
    precision: float | None = Field(default=None, gt=0, lt=1)
    escalate_at_most: float | None = Field(default=None, gt=0, lt=1)
    none_false_alarm: float | None = Field(default=None, gt=0, lt=1)
    none_recall: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if not self.shares:
            raise ValueError(
                f"a goal names a share for one of {', '.join(type(self).model_fields)}"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The shares that are stated, by name."""
        return {name: share for name, share in self if share is not None}


class RouterConfig(_Frozen):
    """How evidence becomes one distribution and a decision.

    `goal` sets the thresholds; without one nothing is escalated. `confidence` is that of each of
    its promises. `risk` says how doubtful an answer is: by the `confidence` in it, by a `learned`
    score, or `auto`, which learns one and uses it where it is better on cross-fitted rows;
    `recall_factor` is the weight of an error in that. `on_failure` is for an escalated text on
    which the judge gave no result: `abstain`, or `answer_best`, the model's own answer.
    """

    gate: bool = True
    lexical: bool = True
    folds: int = Field(default=5, ge=2)
    none_threshold: float = Field(default=0.5, ge=0, le=1)
    none_prior: float = Field(default=0.1, gt=0, lt=1)
    goal: Goal | None = None
    confidence: float = Field(default=0.9, gt=0, lt=1)
    risk: Literal["auto", "confidence", "learned"] = "auto"
    recall_factor: float = Field(default=1.0, gt=0)
    on_failure: Literal["abstain", "answer_best"] = "abstain"


class Price(_Frozen):
    """What a model costs, in USD per million tokens."""

    input_usd: float = Field(ge=0)
    output_usd: float = Field(ge=0)


class JudgeConfig(_Frozen):
    """Whom the loop asks, how, and within which limits.

    `timeout_s` is for one request, `total_time_s` for a question, and for a judge that is away.
    The limits per minute are for any 60 s, the budgets for the life of the ledger. `prices` are by
    the model's name. `queue` is how many questions the pool holds at once (None: four for each
    concurrent request). `temperature` None is the model's own. `max_answer_tokens` is where the
    server cuts an answer; one that is cut cannot be read. `gold_share`: for each question about the
    pool so many, on average, are planted about rows whose label is known, to see how often the
    judge is right; they come on top. `paraphrases`: of a label that begins with fewer texts than
    this the judge says examples in other words, each at most once, until it has so many; an expert
    learns them, a row each of `paraphrase_weight`, where its cross-fitted accuracy rises by them.
    `tokenizer`, a folder or a model's name at the hub, counts a dry run's tokens (None: the
    encoder's). `ledger` is a postgresql:// URL; None is a file in the run's folder.
    """

    spec: str | None = None
    question: Literal["choose", "verify"] = "choose"
    top_k: int = Field(default=5, ge=1)
    examples_per_candidate: int = Field(default=2, ge=0)
    timeout_s: float = Field(default=150.0, gt=0)
    total_time_s: float = Field(default=600.0, gt=0)
    max_attempts: int = Field(default=4, ge=1)
    temperature: float | None = Field(default=0.0, ge=0)
    concurrency: int = Field(default=16, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    queue: int | None = Field(default=None, ge=1)
    budget_calls: int | None = Field(default=None, ge=1)
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, gt=0)
    prices: dict[str, Price] = {}
    max_answer_tokens: int | None = Field(default=None, ge=16)
    describe_labels: bool = False
    paraphrases: int = Field(default=0, ge=0)  # 0: none
    paraphrase_weight: float = Field(default=0.5, gt=0, le=1)
    gold_share: float = Field(default=0.02, ge=0, le=0.5)
    tokenizer: str | None = None
    ledger: str | None = None
    key_variable: str = "OPENAI_API_KEY"


class LoopConfig(_Frozen):
    """When the loop asks, and when it stops.

    `pairs_first` prefers texts whose two best labels are a pair that cross-fitted rows confuse.
    `first_examples`: without labelled rows the judge is asked for so many of each label before the
    loop begins; their rounds do not count as its iterations.
    """

    stop_mode: Literal["informative_only", "informative_then_all_predicted"] = "informative_only"
    max_iterations: int = Field(default=10, ge=1)
    samples_per_iteration: int = Field(default=100, ge=1)
    acquisition: Literal["margin", "entropy", "random"] = "margin"
    diversity: float = Field(default=0.5, ge=0, le=1)
    uncertainty_threshold: float = Field(default=0.1, ge=0, le=1)
    pairs_first: bool = False
    first_examples: int = Field(default=5, ge=2)
    all_predicted_iterations: int = Field(default=3, ge=1)
    recalibrate_every: int = Field(default=3, ge=1)
    plateau_patience: int = Field(default=2, ge=1)
    plateau_min_gain: float = Field(default=0.0, ge=0)


class Criterion(_Frozen):
    """From where a figure is good enough (`go`), and from where it is not (`abort`)."""

    go: float = Field(ge=0)
    abort: float = Field(ge=0)


class ShareCriterion(Criterion):
    """Criterion of a share, as fractions."""

    go: float = Field(ge=0, le=1)
    abort: float = Field(ge=0, le=1)


class AuditCriteria(_Frozen):
    """What a judge must show on the held part of an audit; None asks nothing of a figure.

    `success_rate` is the share of readable answers; `accuracy_offered` is over the questions
    whose true label was among the candidates.
    """

    accuracy: ShareCriterion | None = ShareCriterion(go=0.85, abort=0.7)
    accuracy_offered: ShareCriterion | None = None
    success_rate: ShareCriterion | None = ShareCriterion(go=0.95, abort=0.8)
    unreadable_rate: ShareCriterion | None = ShareCriterion(go=0.05, abort=0.2)
    p95_latency_s: Criterion | None = None
    usd_per_correct: Criterion | None = None

    @model_validator(mode="after")
    def _limits_can_be_met(self) -> Self:
        stated = {name: limits for name, limits in self if limits is not None}
        if not stated:
            raise ValueError("an audit needs at least one criterion")
        for name, limits in stated.items():
            less = name in LESS_IS_BETTER
            if limits.go > limits.abort if less else limits.go < limits.abort:
                raise ValueError(
                    f"{name}.go must not be {'above' if less else 'below'} {name}.abort"
                )
        return self


class AuditConfig(_Frozen):
    """What a judge is audited on, and what decides the outcome.

    `size`: questions at most. `none_share` of them have their true label taken out of the
    candidates, so that *none* is right. `held_share` of them decide the outcome.
    """

    size: int = Field(default=1000, ge=1)
    none_share: float = Field(default=0.1, ge=0, le=0.5)
    held_share: float = Field(default=0.2, gt=0, lt=1)
    criteria: AuditCriteria = AuditCriteria()


PRESETS: dict[str, dict[str, Any]] = {
    "speed": {
        "encoder": {"model": "all-MiniLM-L6-v2"},
        "expert": {"kind": "logistic_regression"},
        "partition": {"umap_dim": 32},
    },
    "balanced": {
        "encoder": {"model": "all-mpnet-base-v2"},
        "expert": {"kind": "random_forest"},
        "partition": {"umap_dim": 50},
    },
    "accuracy": {
        "encoder": {
            "model": "Qwen/Qwen3-Embedding-0.6B",
            "truncate_dim": 128,
            # The model's own prompt named `query`, as it was published.
            "prompt": "Instruct: Given a web search query, retrieve relevant passages that "
            "answer the query\nQuery:",
        },
        "expert": {"kind": "setfit"},
        "partition": {"umap_dim": 64},
    },
}
"""What each mode sets; any of it can be overridden."""


class RunConfig(_Frozen):
    """Everything that decides a run's result."""

    mode: Mode = "speed"
    seed: int = Field(default=42, ge=0)
    samples_per_class: int | None = Field(default=None, ge=1)
    text_column: str = "text"
    label_column: str = "label"
    max_chars: int = Field(default=10_000, gt=0)
    encoder: EncoderConfig = EncoderConfig()
    partition: PartitionConfig = PartitionConfig()
    expert: ExpertConfig = ExpertConfig()
    setfit: SetFitConfig = SetFitConfig()
    noise: NoiseConfig = NoiseConfig()
    router: RouterConfig = RouterConfig()
    judge: JudgeConfig = JudgeConfig()
    loop: LoopConfig = LoopConfig()
    audit: AuditConfig = AuditConfig()

    @model_validator(mode="after")
    def _judge_asks_what_it_can(self) -> Self:
        if self.judge.question == "verify" and self.judge.top_k != 1:
            # Verify asks about the best candidate only; the default of top_k is for `choose`.
            object.__setattr__(self, "judge", self.judge.model_copy(update={"top_k": 1}))
        return self


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a configuration: the mode's preset, then the file, then `overrides`.

    Args:
        path: a YAML file of the keys of `RunConfig`, or None.
        overrides: nested keys that win over the file, as the command line gives them.

    Raises:
        ConfigError: the file cannot be read, or holds an unknown key or a bad value.
    """
    stated = read_yaml(path) if path else {}
    _check_sections(stated, RunConfig)  # before `overrides` could take the place of a bad one
    given = merge(stated, overrides or {})
    return parse_config(merge(_preset(given), given))


def _preset(given: dict[str, Any]) -> dict[str, Any]:
    """What the mode sets; not the prompt and the length of another model's vectors.

    A folder may hold the mode's own model.
    """
    preset = PRESETS.get(str(given.get("mode", "speed")), {})
    encoder = given.get("encoder")
    model = encoder.get("model") if isinstance(encoder, Mapping) else None
    if not isinstance(model, str) or model == preset.get("encoder", {}).get("model"):
        return preset
    if Path(model).expanduser().is_dir():
        return preset
    return {key: value for key, value in preset.items() if key != "encoder"}


def parse_config(data: dict[str, Any]) -> RunConfig:
    """Validate a nested dictionary; every fault is told in one line.

    Raises:
        ConfigError: a key is unknown or a value does not fit.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults_of(error, all_keys(RunConfig))) from error


def changed(config: RunConfig, over: dict[str, Any]) -> RunConfig:
    """The same configuration with other values for some nested keys.

    Raises:
        ConfigError: a key is unknown or a value does not fit.
    """
    return parse_config(merge(config.model_dump(), over))


LIMITS = tuple(
    f"judge.{name}"
    for name in (
        *("timeout_s", "total_time_s", "concurrency", "queue"),
        *("requests_per_minute", "tokens_per_minute"),
        *("budget_calls", "budget_tokens", "budget_usd", "prices", "key_variable"),
    )
)
"""Keys that say how the judge is asked, and how long; no verdict depends on them."""


def with_limits(config: RunConfig, over: dict[str, Any]) -> RunConfig:
    """The same configuration with other limits of the judge.

    Raises:
        ConfigError: another key is among them, or a value does not fit.
    """
    given = changed(config, over)
    if wrong := [key for key in _stated(over) if not key.startswith(LIMITS)]:
        raise ConfigError(
            f"{wrong[0]!r} decides the result, and a run goes on as it was begun: train anew with "
            f"--overwrite; resume takes {', '.join(LIMITS)}"
        )
    return given


def changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two dumped configurations."""
    before, after = _stated(one), _stated(other)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _stated(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted keys."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            found |= _stated(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, in the order of its fields."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(f"the configuration holds the key {twice[0]!r} twice; keep one")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; no key may stand twice.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {error}") from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{str(path)!r} is not valid YAML: {line}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{str(path)!r} must hold keys and values, found {type(data).__name__}")
    return data


def _check_sections(stated: dict[str, Any], model: type[BaseModel], prefix: str = "") -> None:
    """Refuse a section that holds no keys."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if name not in stated or not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        if stated[name] is None:
            raise ConfigError(f"{prefix}{name} holds nothing; check the indentation below it")
        if not isinstance(stated[name], dict):
            raise ConfigError(f"{prefix}{name} must hold keys and values, got {stated[name]!r}")
        _check_sections(stated[name], kind, f"{prefix}{name}.")


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the nested values of `over` in place of its own."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def faults_of(error: ValidationError, keys: Sequence[str]) -> str:
    """What is wrong with a configuration, in one line; `keys` are those that there are."""
    parts = []
    for fault in error.errors():
        where = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, keys, n=1)
            told = f"; did you mean {near[0]!r}?" if near else ""
            parts.append(f"unknown configuration key {where!r}{told}")
        elif fault["type"] == "missing":
            parts.append(f"the key {where!r} is missing")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = fault["input"]
            given = shown_address(given) if is_address(given) else given  # it may hold a secret
            shown = "" if isinstance(given, Mapping) else f", got {given!r}"
            parts.append(f"{where}: {message}{shown}" if where else message)
    return "; ".join(parts)


def all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a configuration, nested ones with dots."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        kind = next((one for one in get_args(info.annotation) if one is not type(None)), None)
        kind = kind if type(None) in get_args(info.annotation) else info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys.extend(all_keys(kind, f"{prefix}{name}."))
    return keys
