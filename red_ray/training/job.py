"""What a training run starts from and ends with."""

from __future__ import annotations

from dataclasses import dataclass

from red_ray.config import RunConfig
from red_ray.model import RedModel
from red_ray.training.crossfit import Crossfit
from red_ray.types import Iteration


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Rows and configuration; all that a run's result depends on but the judge's answers.

    Attributes:
        texts: labelled texts.
        labels: their labels, by name.
        pool: unlabelled texts, each once; what is hidden about them never comes here.
        descriptions: of labels, by name; a label without one is described by its name.
        config: the resolved configuration.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pool: tuple[str, ...]
    descriptions: dict[str, str]
    config: RunConfig

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels, sorted, so that row order changes nothing."""
        return tuple(sorted(set(self.labels)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures from cross-fitted training rows: estimates, never promises.

    `log_likelihood` is the mean log-probability of the seed rows' labels given that a label
    fits; the others are as in the scorecard.
    """

    log_likelihood: float
    accuracy: float
    ece: float
    brier: float


@dataclass(frozen=True, slots=True)
class Dispute:
    """A label that a person should look at.

    Attributes:
        text: the text.
        label: as given by the user, or by the judge in the loop.
        by_judge: whether the judge gave it.
        judge_says: what the judge says of a label that the user gave; None for none of these.
        model_says: the label of a model that had not seen the row.
        confidence: of the model in it, 0 to 1.
    """

    text: str
    label: str
    by_judge: bool
    judge_says: str | None
    model_says: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run ends with.

    Attributes:
        model: the trained model.
        estimate: of its quality, from cross-fitted training rows.
        first_estimate: the same before the judge was asked.
        iterations: the loop's history, empty without a judge.
        stop_reason: why the loop stopped, empty without one.
        timing_s: wall seconds by stage.
        strategy: the partition strategy used, where `auto` had to choose.
        disputes: labels that a person should look at, those the model is surest about first.
        crossfit: what the router was fitted on.
    """

    model: RedModel
    estimate: Estimate
    first_estimate: Estimate
    iterations: tuple[Iteration, ...]
    stop_reason: str
    timing_s: dict[str, float]
    strategy: str
    disputes: tuple[Dispute, ...] = ()
    crossfit: Crossfit | None = None
