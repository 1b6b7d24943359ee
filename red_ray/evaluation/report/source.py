"""What a report is made of: the files of a run folder, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from red_ray.config import RunConfig, load_config
from red_ray.errors import ConfigError, DataError
from red_ray.types import Iteration

_Parsed = TypeVar("_Parsed")


class _Part(BaseModel):
    """Part of a file; keys that a newer version adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Confusion(_Part):
    """Test rows of the label `true` that were given the label `predicted`."""

    true: str
    predicted: str
    count: int
    share_of_true: float | None = None
    examples: tuple[str, ...] = ()


class ExpertRow(_Part):
    """An expert on the test rows; `accuracy_inside` is told the subset, an oracle figure."""

    expert: str
    labels: tuple[str, ...] = ()
    n_rows: int
    n_noise: int
    accuracy_inside: float | None = None
    routed_share: float | None = None
    accuracy: float | None = None


class LabelRow(_Part):
    """A label on the test rows."""

    label: str
    n_train: int
    n_test: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    expert: str = ""


class CurvePoint(_Part):
    """The estimated accuracy at a size of the training set; null where not measured."""

    n_train: int
    n_requests: int
    estimated_accuracy: float | None = None


class _Histogram(_Part):
    edges: tuple[float, ...]

    def _check(self, *groups: tuple[int, ...]) -> None:
        if any(len(counts) != len(self.edges) - 1 for counts in groups):
            lengths = [len(counts) for counts in groups]
            raise ValueError(f"{len(self.edges)} edges do not fit {lengths} counts")


class ConfidenceHistogram(_Histogram):
    """Test rows by confidence, right and wrong ones."""

    correct: tuple[int, ...]
    wrong: tuple[int, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check(self.correct, self.wrong)
        return self


class NoneHistogram(_Histogram):
    """Rows by the score of "no label fits": test rows, and texts known to fit no label."""

    in_scope: tuple[int, ...]
    out_of_scope: tuple[int, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._check(self.in_scope, self.out_of_scope)
        return self


class Estimate(_Part):
    """Figures of cross-fitted rows, the user's where there are some: an estimate."""

    log_likelihood: float | None = None
    accuracy: float | None = None
    ece: float | None = None
    brier: float | None = None


class ThresholdPoint(_Part):
    """What an escalation threshold does to the rows that thresholds come from; null: of none."""

    threshold: float
    escalated: float
    escalated_band: tuple[float, float]
    catch: float | None = None
    catch_band: tuple[float, float] = (0.0, 1.0)
    precision: float | None = None
    precision_band: tuple[float, float] = (0.0, 1.0)


class ThresholdDetails(_Part):
    """Where the thresholds come from; without `escalate` nothing is escalated."""

    source: str
    confidence: float
    goals: dict[str, float]
    n_rows: int
    n_errors: int
    n_out_of_scope: int = 0
    labelled_by: str = "user"
    escalate: float | None = None
    none: float
    curve: tuple[ThresholdPoint, ...] = ()
    stale: str = ""

    @property
    def chosen(self) -> ThresholdPoint | None:
        """The point of the threshold in use: the last one that is not below it."""
        if self.escalate is None:
            return self.curve[0] if self.curve else None
        above = [point for point in self.curve if point.threshold >= self.escalate]
        return above[-1] if above else None


class Paraphrases(_Part):
    """Texts that the judge wrote to teach labels with few, and the experts that learned some."""

    n_written: int
    n_labels: int
    n_learned: int = 0
    experts: tuple[str, ...] = ()


class Details(_Part):
    """`details.json`: what the evaluation leaves for the report."""

    confusions: tuple[Confusion, ...] = ()
    reliability: tuple[tuple[float, float, int], ...] = ()
    experts: tuple[ExpertRow, ...] = ()
    labels: tuple[LabelRow, ...] = ()
    learning_curve: tuple[CurvePoint, ...] = ()
    confidence_histogram: ConfidenceHistogram | None = None
    none_histogram: NoneHistogram | None = None
    estimate: Estimate | None = None
    thresholds: ThresholdDetails | None = None
    judge_spec: str | None = None
    judge: dict[str, Any] | None = None
    stop_reason: str = ""
    strategy: str = ""
    n_seed: int | None = None
    n_train: int | None = None
    labelled_by: str = "user"
    unseen: tuple[str, ...] = ()
    paraphrases: Paraphrases | None = None


class EscalationPoint(_Part):
    """Accuracy over all test rows, with this share of them put to the judge, and its price."""

    escalated: float
    accuracy: float
    accuracy_ci: tuple[float, float]
    calls: int
    cost_usd: float | None = None


class AskedRows(_Part):
    """What came of putting the riskiest test rows to a judge; `failed` ones gave no result."""

    judge: str
    simulated: bool = False
    on_failure: str = "abstain"
    asked: int
    failed: int = 0
    requests: int = 0
    from_ledger: int = 0
    curve: tuple[EscalationPoint, ...] = ()


class Scorecard(BaseModel):
    """`scorecard.json`; a key that is not a table stands in `rates`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    baselines: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    router: dict[str, Any] | None = None
    none: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    escalation: AskedRows | None = None
    leaks: dict[str, Any] | None = None
    timing_s: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None

    @property
    def rates(self) -> dict[str, Any]:
        """The figures that stand at the top level, `accuracy` and so on."""
        return dict(self.model_extra or {})


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything that a run folder holds for its report; None or empty where a file is not."""

    name: str
    config: RunConfig
    config_text: str
    scorecard: Scorecard | None
    details: Details | None
    iterations: tuple[Iteration, ...]

    @property
    def judge_spec(self) -> str | None:
        """The judge that was asked, None without one."""
        return (self.details and self.details.judge_spec) or self.config.judge.spec


def read_run(run: Path) -> RunFiles:
    """Read the files of a run folder.

    Raises:
        DataError: `config.yaml` is not there, or a file is damaged.
    """
    config, text = _read_config(run / "config.yaml")
    return RunFiles(
        name=run.resolve().name,
        config=config,
        config_text=text,
        scorecard=_read_json(run / "scorecard.json", Scorecard.model_validate_json),
        details=_read_json(run / "details.json", Details.model_validate_json),
        iterations=_read_iterations(run / "iterations.jsonl"),
    )


def _read_config(path: Path) -> tuple[RunConfig, str]:
    data = _read_bytes(path)
    if data is None:
        raise DataError(
            f"{str(path.parent)!r} is no run folder: it holds no config.yaml; "
            "name the folder that `red-ray train --out` wrote"
        )
    try:
        return load_config(path), data.decode("utf-8")
    except (ConfigError, UnicodeDecodeError) as error:
        raise DataError(f"cannot use {str(path)!r}: {error}") from error


def _read_json(path: Path, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
    data = _read_bytes(path)
    return None if data is None else _parsed(data, str(path), parse)


def _read_iterations(path: Path) -> tuple[Iteration, ...]:
    parse = TypeAdapter(Iteration).validate_json
    lines = (_read_bytes(path) or b"").split(b"\n")
    return tuple(
        _parsed(line, f"{path}, line {number}", parse)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _parsed(data: bytes, where: str, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    try:
        return parse(data)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(step) for step in fault["loc"])
        told = f"{key}: {fault['msg']}" if key else fault["msg"]
        raise DataError(
            f"{where!r} is damaged ({told}); restore it, or delete it to report without it"
        ) from error
