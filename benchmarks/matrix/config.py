"""What a matrix holds: tasks, columns and seeds, from a YAML file.

A column is one thing that a user could have used instead: a method with its model and settings. Its
method is stated, and each method has settings of its own, so that no reader has to guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from red_ray.config import faults_of
from red_ray.errors import ConfigError
from red_ray.judges.spec import is_simulated

CONFIGS = Path(__file__).resolve().parent / "configs"
NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._+,-]*$"

NO_PART_OF_A_RESULT = {"name", "tasks", "seeds", "base", "stand_in", "time_s", "memory_mb"}
"""Of a column: what may change without changing a finished cell."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TaskConfig(_Frozen):
    """Rows to learn from and rows to report on.

    Attributes:
        path: folder of tables, below RED_RAY_DATA or absolute; instead of `hub`.
        hub: data set of a model hub with its configuration, as `nyu-mll/glue:sst2`.
        train: the table, or the split of `hub`, that is learned from.
        report: the one that is reported on, and touched by nothing else.
        text: its column of texts, or the two columns of a pair.
        label: its column of labels.
        labels: names of labels that the table has as numbers, in their order.
        positive: of two labels the one that is sought; by default the last in sorted order.
        per_label: rows drawn of each label of train; None takes all.
        n_train: rows drawn of train, each label's share kept; None takes all.
        n_report: rows drawn to report on, the same for every seed and column; None takes all.
        select_fraction: of the drawn rows, held back to choose the best epoch or strength.
        instruction: what a language model is told to do.
        words: what it may answer for each label; by default the label itself.
        seeds: by default those of the matrix.
    """

    path: str | None = None
    hub: str | None = None
    train: str = "train.csv"
    report: str = "test.csv"
    text: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("text",)
    label: str = "label"
    labels: tuple[str, ...] = ()
    positive: str | None = None
    per_label: int | None = Field(default=None, gt=0)
    n_train: int | None = Field(default=None, gt=0)
    n_report: int | None = Field(default=None, gt=0)
    select_fraction: float = Field(default=0.2, gt=0, lt=1)
    instruction: str = "Which label fits the text?"
    words: Mapping[str, str] = {}
    seeds: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError(
                f"give `path` or `hub`, one of them: path={self.path!r}, hub={self.hub!r}"
            )
        if len(self.text) not in (1, 2):
            raise ValueError(f"`text` names one column, or the two of a pair: {self.text!r}")
        if self.per_label is not None and self.n_train is not None:
            raise ValueError(
                f"give `per_label` or `n_train`: {self.per_label!r} and {self.n_train!r}"
            )
        return self


class _Column(_Frozen):
    """What every column has.

    Attributes:
        name: in every table.
        tasks: those that it runs on; by default all.
        seeds: by default those of the task.
        base: name of the column that it was made from, for before and after.
        stand_in: whether its model only shows that the method runs: random weights, say. It is in
            every table, and in no answer, advice or warning of few rows.
        num_cpus: whole cores of a cell, which it shares with none.
        num_gpus: of a cell, as Ray counts them.
        time_s: a cell that takes longer is a hole; by default the limit of the matrix.
        memory_mb: one that takes more memory is a hole; by default the limit of the matrix.
    """

    name: str = Field(pattern=NAME)
    tasks: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    base: str | None = None
    stand_in: bool = False
    num_cpus: float = Field(default=1, ge=1, multiple_of=1)
    num_gpus: float = Field(default=0, ge=0)
    time_s: float | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)

    @property
    def of_result(self) -> dict[str, Any]:
        """The settings that a finished cell depends on, as JSON has them."""
        return self.model_dump(mode="json", exclude=NO_PART_OF_A_RESULT)


class ConstantColumn(_Column):
    """`majority`: always the most frequent label of train; `prior`: drawn as train's shares are."""

    method: Literal["majority", "prior"]


class ClassicalColumn(_Column):
    """A classical model of embeddings: `flat` (logistic regression, C=10, the scorecard's
    baseline), `random_forest`, or `lasso` (logistic regression with an L1 penalty, whose strength
    is chosen on the rows held back of train).

    A pair is embedded as both vectors, their difference and their product.
    """

    method: Literal["flat", "random_forest", "lasso"]
    model: str = "all-MiniLM-L6-v2"
    n_trees: int = Field(default=500, gt=0)
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class SetFitColumn(_Column):
    """SetFit's own library, one model for all labels, its own defaults where nothing is said."""

    method: Literal["setfit"]
    model: str = "all-MiniLM-L6-v2"
    batch_size: int = Field(default=16, gt=0)
    max_steps: int = Field(default=-1, ge=-1)
    epochs: int = Field(default=1, gt=0)


class RedColumn(_Column):
    """R.E.D. without a judge, in one of its modes; `settings` as `--set` takes them."""

    method: Literal["red_ray"]
    mode: Literal["speed", "balanced", "accuracy"] = "speed"
    settings: Mapping[str, Any] = {}


class _Trained(_Column):
    """What all trainings by gradient have; the best epoch is that of the rows held back of train.

    Attributes:
        model: name at a hub, or a folder.
        epochs: passes over the rows, at most.
        patience: epochs without a gain on the rows held back, after which it stops.
        refit: whether it then learns anew, from all rows for as many epochs as were best, in place
            of keeping the best epoch's weights: with few rows those held back are missed.
        learning_rate: at its height; it rises over `warmup` of the steps, then falls to 0.
        warmup: share of the steps.
        batch_size: texts.
        max_tokens: longer texts are cut.
        dtype: of the weights; `auto` takes bfloat16 on a graphics card that has it. What is trained
            stays in float32 and only computes in it.
    """

    model: str
    epochs: int = Field(default=3, gt=0)
    patience: int | None = Field(default=None, gt=0)
    refit: bool = False
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    batch_size: int = Field(default=16, gt=0)
    max_tokens: int = Field(default=256, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class FineTuneColumn(_Trained):
    """All weights of an encoder and a new head over the labels."""

    method: Literal["fine_tune"]


class PromptColumn(_Column):
    """A language model that is asked, untrained: `zero_shot`, or `few_shot` with `shots` examples.

    It writes at most `max_new_tokens` greedily; what names no label, or several, is unreadable.
    """

    method: Literal["zero_shot", "few_shot"]
    model: str
    shots: int = Field(default=5, gt=0)
    max_new_tokens: int = Field(default=12, gt=0)
    max_tokens: int = Field(default=1024, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class LoraColumn(_Trained):
    """A language model, asked as `zero_shot` is, with trained low-rank changes of its weights."""

    method: Literal["lora"]
    rank: int = Field(default=8, gt=0)
    alpha: int = Field(default=16, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    max_new_tokens: int = Field(default=12, gt=0)


class JudgeColumn(_Column):
    """A judge of ours that is offered all labels, with the `shots` nearest examples of each.

    *None of them*, an answer that cannot be read and no answer at all are unreadable.
    """

    method: Literal["judge"]
    judge: str
    shots: int = Field(default=0, ge=0)
    settings: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _answers_by_itself(self) -> Self:
        if is_simulated(self.judge):
            raise ValueError(
                f"{self.judge!r} looks the true label up, so that it is no column of a comparison"
            )
        return self


Column = Annotated[
    ConstantColumn
    | ClassicalColumn
    | SetFitColumn
    | RedColumn
    | FineTuneColumn
    | PromptColumn
    | LoraColumn
    | JudgeColumn,
    Field(discriminator="method"),
]


class Cell(NamedTuple):
    """One column on one task with one seed."""

    task: str
    column: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task}--{self.column.replace(' ', '_')}--{self.seed}"


class MatrixConfig(_Frozen):
    """A matrix; see the module.

    Attributes:
        name: of the matrix.
        seeds: each draws its own rows of train and its own start of the training.
        tasks: by name.
        columns: in the order of the tables.
        against: the column that short tables hold the others against; None: each stands alone.
        time_s, memory_mb: limits of a cell that states none.
        n_single: texts of train whose latency is measured one by one.
        batch_size: of the texts that are reported on, whose throughput is measured.
        keep_models: whether a cell's folder holds what it trained.
        usd_per_hour: price of the machine, which gives texts a price; None: only judges have one.
    """

    name: str = Field(pattern=NAME)
    seeds: tuple[int, ...] = (0, 1, 2)
    tasks: Mapping[Annotated[str, Field(pattern=NAME)], TaskConfig] = Field(min_length=1)
    columns: tuple[Column, ...] = Field(min_length=1)
    against: str | None = None
    time_s: float = Field(default=3600, gt=0)
    memory_mb: float = Field(default=16_000, gt=0)
    n_single: int = Field(default=50, gt=0)
    batch_size: int = Field(default=32, gt=0)
    keep_models: bool = False
    usd_per_hour: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"a column's name stands once: {', '.join(map(repr, twice))}")
        if self.against is not None and self.against not in names:
            raise ValueError(f"no column {self.against!r} to hold the others against")
        for column in self.columns:
            strange = sorted(set(column.tasks or ()) - set(self.tasks))
            if strange:
                raise ValueError(
                    f"column {column.name!r} names tasks that are not there: {strange}"
                )
            if column.base is not None and column.base not in names:
                raise ValueError(f"column {column.name!r} has no base {column.base!r} beside it")
        for one in (self, *self.tasks.values(), *self.columns):
            again = [seed for seed, n in Counter(one.seeds or ()).items() if n > 1]
            if again:
                raise ValueError(f"seed {again[0]} stands twice")
        folders = Counter(cell.name for cell in self.cells)
        shared = [name for name, n in folders.items() if n > 1]
        if shared:
            raise ValueError(
                f"cells of several columns would share the folder {shared[0]!r}: names must differ "
                "in more than a space for an underscore"
            )
        return self

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, task by task, in the order of the columns."""
        return tuple(
            Cell(task, column.name, seed)
            for task, column in product(self.tasks, self.columns)
            if column.tasks is None or task in column.tasks
            for seed in self.seeds_of(task, column)
        )

    def seeds_of(self, task: str, column: Column) -> tuple[int, ...]:
        """Seeds of a column on a task."""
        return column.seeds or self.tasks[task].seeds or self.seeds

    def column(self, name: str) -> Column:
        """The column of a name."""
        return next(column for column in self.columns if column.name == name)


def load_matrix(path: str | Path) -> MatrixConfig:
    """Read a matrix from YAML: a file, or the name of one that is shipped.

    Raises:
        ConfigError: there is no such file, or it says what no matrix has.
    """
    place = Path(path)
    if not place.exists() and (CONFIGS / f"{path}.yaml").exists():
        place = CONFIGS / f"{path}.yaml"
    try:
        content = yaml.safe_load(place.read_text(encoding="utf-8"))
        return MatrixConfig.model_validate(content)
    except OSError as error:
        shipped = ", ".join(sorted(one.stem for one in CONFIGS.glob("*.yaml")))
        raise ConfigError(
            f"no configuration at {str(path)!r} ({error}); shipped ones: {shipped}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{str(place)!r} is no YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{str(place)!r}: {faults_of(error, ())}") from error
