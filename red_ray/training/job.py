"""What a training run starts from and ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from red_ray.config import RunConfig
from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs
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
        label_set: names of all labels; of those without a row the judge finds the first examples.
        n_judged: how many of the rows, the last ones, a judge labelled and not the user.
        apart: keys of the calibration texts: what a judge writes must be none of them.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pool: tuple[str, ...]
    descriptions: dict[str, str]
    config: RunConfig
    label_set: tuple[str, ...] = ()
    n_judged: int = 0
    apart: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: RunConfig, inputs: Inputs, *, pool: bool = True) -> Self:
        """The job of a run's rows.

        Args:
            config: resolved.
            inputs: rows.
            pool: whether anybody will be asked about the pool; encoding it were for nothing else.
        """
        train, judged, known = inputs.train, inputs.judged, inputs.calibration
        return cls(
            texts=(*train.texts, *judged.texts),
            labels=(*train.labels, *judged.labels),
            pool=inputs.pool if pool else (),
            descriptions=dict(inputs.descriptions),
            config=config,
            label_set=inputs.labels,
            n_judged=len(judged),
            apart=frozenset() if known is None else known.keys,
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels, sorted, so that row order changes nothing."""
        return tuple(sorted({*self.labels, *self.label_set}))

    @property
    def n_seed(self) -> int:
        """How many of the rows, the first ones, the user labelled."""
        return len(self.texts) - self.n_judged

    def described(self) -> list[str]:
        """Each label's description, or its name as words."""
        return [self.descriptions.get(name) or readable(name) for name in self.label_names]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures from cross-fitted training rows: estimates, never promises.

    They are over the rows that the user labelled, where there are enough of them (see `Ensemble`).
    `log_likelihood` is the mean log-probability of their labels given that a label
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
class Paraphrase:
    """What a judge wrote to teach a label that has few texts.

    Attributes:
        text: the text.
        label: of the text that it says in other words.
        source: that text.
        by: the judge.
        learned: whether the label's expert learned it, and so the gate.
    """

    text: str
    label: str
    source: str
    by: str
    learned: bool


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
        n_first: rows that the first estimate was made with.
        disputes: labels that a person should look at, those the model is surest about first.
        crossfit: what the router was fitted on.
        paraphrases: what the judge wrote; none of them is an example of the model.
    """

    model: RedModel
    estimate: Estimate
    first_estimate: Estimate
    iterations: tuple[Iteration, ...]
    stop_reason: str
    timing_s: dict[str, float]
    strategy: str
    n_first: int
    disputes: tuple[Dispute, ...] = ()
    crossfit: Crossfit | None = None
    paraphrases: tuple[Paraphrase, ...] = ()

    @property
    def learned_keys(self) -> frozenset[str]:
        """Keys of the paraphrases that have a say in the model: no test row may be among them."""
        return frozenset(text_key(one.text) for one in self.paraphrases if one.learned)


def readable(label: str) -> str:
    """A label's name as words: `card_arrival` reads `card arrival`."""
    return label.replace("_", " ").replace("-", " ")
