"""What a change of labels is checked for, before a judge is paid or anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence

from red_ray.core.text import text_key
from red_ray.errors import ConfigError, DataError
from red_ray.judges import NONE_OPTION
from red_ray.model import RedModel

FEWEST = 2
"""Labels that a model needs: with one there is nothing to tell apart."""

NONE_WORDS = ("none", NONE_OPTION)
"""What says that no label fits: as a decision, in disputed.csv, and of a judge. Rows to train on
may have such a label; nobody gives one that name by a command."""


def position_of(model: RedModel, name: str) -> int:
    """Where a label stands.

    Raises:
        DataError: the model lacks it.
    """
    try:
        return model.labels.index(name)
    except ValueError:
        near = _nearest_name(model, name)
        raise DataError(f"the model has no label {name!r}{near}") from None


def _nearest_name(model: RedModel, name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, model.labels, n=1)
    return f"; did you mean {near[0]!r}?" if near else f", but {len(model.labels)} others"


def new_name(model: RedModel, name: str) -> str:
    """The name of a label to be, without white space around it.

    Raises:
        ConfigError: it is empty, or says that no label fits.
        DataError: the model has such a label.
    """
    name = name.strip()
    if not name:
        raise ConfigError("a label needs a name that is not empty")
    if name.casefold() in NONE_WORDS:
        raise ConfigError(
            f"{name!r} says that no label fits, in answers and in disputed.csv: choose another name"
        )
    if name in model.labels:
        raise DataError(
            f"the model has a label {name!r} already; choose another name, or merge the two"
        )
    return name


def alike(labels: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """One line for each new label whose name differs from another one's only by capitals.

    Args:
        labels: after a change.
        before: those of before.
    """
    pairs = [
        (name, other)
        for name in labels
        if name not in before
        for other in labels
        if other != name and other.casefold() == name.casefold()
    ]
    return tuple(
        f"the labels {name!r} and {other!r} differ only by capitals: if they are one, merge them"
        for name, other in pairs
    )


def split_names(model: RedModel, name: str, into: Sequence[str]) -> tuple[int, tuple[str, str]]:
    """Where a label to be split stands, and the names of the two that it becomes.

    Raises:
        ConfigError: there are not two different names.
        DataError: the model lacks the label, has one of the others, or has a single row of it.
    """
    label = position_of(model, name)
    if len(set(into)) != 2 or len(into) != 2:
        raise ConfigError("a split makes two labels: give two different names")
    first, second = (one if one == name else new_name(model, one) for one in into)
    if (model.example_labels == label).sum() < 2:
        raise DataError(f"the model has one row of {name!r}: a split needs one for each of the two")
    return label, (first, second)


def fresh(model: RedModel, texts: Sequence[str]) -> tuple[int, ...]:
    """Positions of texts that may become rows: of a text that is there twice, the first.

    Raises:
        DataError: one of them is a labelled row already.
    """
    first: dict[str, int] = {}
    for at, text in enumerate(texts):
        first.setdefault(text_key(text), at)
    labelled = zip(model.example_texts, model.example_labels.tolist(), strict=True)
    known = {text_key(text): label for text, label in labelled}
    clash = [known[key] for key in first if key in known]
    if clash:
        n, other = len(clash), model.labels[clash[0]]
        rows = "one example is a row" if n == 1 else f"{n} examples are rows"
        raise DataError(
            f"{rows} of the model already, the first of the label {other!r}: take them out, or "
            f"split {other!r}"
        )
    return tuple(first.values())


def check_left(model: RedModel, n_left: int) -> None:
    """Refuse to leave a model with too few labels.

    Raises:
        DataError: these are too few.
    """
    if n_left < FEWEST:
        raise DataError(
            f"the model has {len(model.labels)} labels, and this would leave {n_left}: it needs "
            f"at least {FEWEST}"
        )


def check_parts(parts: Sequence[str | None], names: tuple[str, str]) -> None:
    """Refuse a split that leaves one of its two labels without a row.

    Args:
        parts: of each row of the model, the name it gets; empty or None for other rows.
        names: of the two.

    Raises:
        DataError: one of them has none.
    """
    for name in names:
        if name not in parts:
            raise DataError(
                f"no row of the model goes to {name!r}: a split needs a row for each of the two"
            )
