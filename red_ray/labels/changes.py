"""Changes of the label set: from a model to a new model, in memory.

Labels keep their places: a new one stands behind all others, a merged one in the place of the
first, a renamed one where it was. (Training sorts them; a training on the same rows gives another
order, and the same answers but for rounding and ties.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from red_ray.core.text import text_key
from red_ray.data.inputs import KnownRows
from red_ray.encoding import plain_part
from red_ray.errors import ConfigError, DataError
from red_ray.labels.checks import (
    alike,
    check_left,
    check_parts,
    fresh,
    new_name,
    position_of,
    split_names,
)
from red_ray.labels.draft import NEW, Draft
from red_ray.labels.placing import (
    balanced,
    concerned,
    label_points,
    near_labels,
    receiving,
)
from red_ray.labels.refit import Change, Known, refitted, timed
from red_ray.model import RedModel, TextEncoder
from red_ray.training.crossfit import Crossfit, Refused

Ints = NDArray[np.int64]


@timed
def add(
    model: RedModel,
    crossfit: Crossfit | None,
    name: str,
    texts: Sequence[str],
    *,
    description: str = "",
    judged: bool = False,
    known: KnownRows | None = None,
    encoder: TextEncoder | None = None,
) -> Change:
    """Add a label from examples.

    It goes to the expert of the nearest label that has room, and where none of the three nearest
    has any, to that of the nearest.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
        name: of the label.
        texts: its examples, at least one.
        description: what a judge is told of it.
        judged: whether a judge picked the examples, and not the user.
        known: calibration rows of the run, those of the new label among them, where it has any.
        encoder: of the model; loaded by it where none is given.

    Raises:
        ConfigError: the name is empty, or says that no label fits.
        DataError: the model has the label, or there is no example, or one of them is a labelled
            row already.
    """
    name = new_name(model, name)
    texts = _examples(model, name, texts)
    encoder = model.loaded_encoder if encoder is None else encoder
    vectors = plain_part(encoder).encode(texts)
    draft = _draft(model, crossfit)
    label = len(model.labels)
    labels = np.full(len(texts), label)
    rows = draft.rows.with_more(texts, vectors, labels, judged=judged)
    size = model.config.partition.subset_size
    points = label_points(
        replace(
            draft,
            rows=rows,
            labels=(*draft.labels, name),
            descriptions=(*draft.descriptions, description),
        ),
        encoder,
    )
    position = receiving(draft, near_labels(points, label), size)
    draft = draft.with_label(name, description, position).with_rows(rows)
    draft = balanced(draft, points, size, model.config.seed)
    chosen = concerned(draft, points, [label])
    about = None if known is None else Known(_without(known, name), known)
    return refitted(model, crossfit, draft, chosen, known=about, encoder=encoder)


@timed
def merge(
    model: RedModel,
    crossfit: Crossfit | None,
    names: Sequence[str],
    into: str,
    *,
    description: str | None = None,
    known: KnownRows | None = None,
    encoder: TextEncoder | None = None,
) -> Change:
    """Make several labels one; it stands where the first of them stood, with the rows of all.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
        names: of the labels, at least two.
        into: name of the one that they become; may be one of theirs.
        description: of it; by default that of the first which has one.
        known: calibration rows of the run, by their names before, where it has any.
        encoder: of the model; loaded by it where none is given.

    Raises:
        ConfigError: fewer than two labels are named, one of them twice, or `into` is no name.
        DataError: the model lacks one of them, has another label of the name `into`, or would be
            left with a single label.
    """
    if len(set(names)) < max(len(names), 2):
        raise ConfigError("a merge takes two labels or more, each once")
    at = [position_of(model, name) for name in names]
    into = into.strip() if into.strip() in names else new_name(model, into)
    check_left(model, len(model.labels) - len(names) + 1)
    encoder = model.loaded_encoder if encoder is None else encoder
    first, *others = at
    told = next((model.descriptions[one] for one in at if model.descriptions[one]), "")
    told = told if description is None else description
    draft = _draft(model, crossfit)
    draft = draft.relabelled(np.isin(draft.rows.labels, others), first)
    draft = draft.renamed(first, into, told)
    draft = replace(draft, changed=draft.changed | {draft.expert_of(one) for one in at})
    for label in sorted(others, reverse=True):
        draft = draft.without_label(label)
    return _finished(
        model,
        crossfit,
        draft,
        [into],
        known=_known(known, dict.fromkeys(names, into)),
        encoder=encoder,
    )


@timed
def split(
    model: RedModel,
    crossfit: Crossfit | None,
    name: str,
    into: Sequence[str],
    part_of: Mapping[str, str | None],
    *,
    descriptions: Sequence[str] = ("", ""),
    judged: bool = False,
    known: KnownRows | None = None,
    encoder: TextEncoder | None = None,
) -> Change:
    """Make one label two: the first stands in its place, the second behind all others.

    Both stay with its expert where that has room.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
        name: of the label.
        into: the two names; one of them may be the label's own.
        part_of: to which of the two a text belongs, by `text_key`; None where to none. Rows of the
            label that it does not name leave the model, and so do calibration rows.
        descriptions: of the two.
        judged: whether a judge said so, and not the user: then the rows count as the judge's.
        known: calibration rows of the run, by their names before, where it has any.
        encoder: of the model; loaded by it where none is given.

    Raises:
        ConfigError: there are not two different names.
        DataError: the model lacks the label, has one of the others, has a single row of it, or a
            part would have no row.
    """
    label, (first, second) = split_names(model, name, into)
    encoder = model.loaded_encoder if encoder is None else encoder
    draft = _draft(model, crossfit).renamed(label, first, descriptions[0])
    parts = [
        part_of.get(text_key(text)) if row == label else ""
        for text, row in zip(draft.rows.texts, draft.rows.labels, strict=True)
    ]
    check_parts(parts, (first, second))
    draft = draft.with_label(second, descriptions[1], draft.expert_of(label))
    of_part = np.array(parts, dtype=object)
    draft = draft.relabelled(of_part == second, len(draft.labels) - 1)
    mine = draft.rows.origins != NEW
    ours = mine & np.isin(draft.rows.labels, (label, len(draft.labels) - 1))
    draft = replace(draft, rows=replace(draft.rows, redrawn=ours))
    left_out = ours & (of_part != first) & (of_part != second)
    draft = draft.without_rows(left_out)
    if judged:
        draft = _behind(draft, np.isin(draft.rows.labels, (label, len(draft.labels) - 1)))
    draft = _roomier(draft, model, encoder)
    told = _left_out(int(left_out.sum()), name)
    return _finished(
        model,
        crossfit,
        draft,
        [first, second],
        known=_known_parts(known, name, part_of),
        encoder=encoder,
        notes=told,
    )


@timed
def retire(
    model: RedModel,
    crossfit: Crossfit | None,
    name: str,
    *,
    keep_as_none: bool = False,
    known: KnownRows | None = None,
    encoder: TextEncoder | None = None,
) -> Change:
    """Remove a label with its rows.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
        name: of the label.
        keep_as_none: whether its rows stay as texts that fit no label: the experts that are
            refitted learn them as noise, and its calibration rows count as out of scope.
        known: calibration rows of the run, by their names before, where it has any.
        encoder: of the model; loaded by it where none is given.

    Raises:
        DataError: the model lacks the label, or would be left with a single one.
    """
    label = position_of(model, name)
    check_left(model, len(model.labels) - 1)
    encoder = model.loaded_encoder if encoder is None else encoder
    draft = _draft(model, crossfit)
    points = label_points(draft, encoder)
    near = [model.labels[one] for one in near_labels(points, label)]
    gone = draft.rows.labels == label
    texts = [text for text, is_gone in zip(draft.rows.texts, gone, strict=True) if is_gone]
    vectors = draft.rows.vectors[gone]
    draft = replace(draft, changed=draft.changed | {draft.expert_of(label)})
    draft = draft.without_rows(gone).without_label(label)
    size = model.config.partition.subset_size
    points = np.delete(points, label, axis=0)
    draft = balanced(draft, points, size, model.config.seed)
    chosen = set(draft.changed)
    chosen |= {draft.expert_of(draft.labels.index(one)) for one in near}
    if keep_as_none and name not in model.unseen:  # what stands for a name is no text
        draft = _refusing(draft, texts, vectors, sorted(chosen))
    after = _without(known, name, as_strange=keep_as_none) if known is not None else None
    return refitted(
        model,
        crossfit,
        draft,
        sorted(chosen),
        known=None if known is None or after is None else Known(known, after),
        encoder=encoder,
    )


@timed
def rename(
    model: RedModel,
    crossfit: Crossfit | None,
    old: str,
    new: str,
    *,
    description: str | None = None,
    known: KnownRows | None = None,
) -> Change:
    """Give a label another name; nothing is fitted, and no answer changes but for the name.

    Args:
        model: trained.
        crossfit: what its run keeps of its cross-fitting, or None.
        old: its name.
        new: the name that it gets.
        description: the description that it gets; by default it keeps its own.
        known: calibration rows of the run, by their names before, where it has any.

    Raises:
        ConfigError: the new name is empty, or says that no label fits.
        DataError: the model lacks the label, or has the other.
    """
    label = position_of(model, old)
    new = new_name(model, new)
    draft = Draft.of(model).renamed(label, new, description)
    about, promise = _known(known, {old: new}), model.promise
    if promise is not None:
        digest = promise.data_hash
        if about is not None and digest == about.before.data_hash:
            digest = about.after.data_hash
        uncovered = tuple(new if name == old else name for name in promise.uncovered)
        promise = replace(promise, data_hash=digest, uncovered=uncovered)
    changed = replace(
        model,
        labels=draft.labels,
        descriptions=draft.descriptions,
        unseen=tuple(new if name == old else name for name in model.unseen),
        promise=promise,
        bundle_id="",
    )
    return Change(
        changed,
        crossfit,
        experts=(),
        gate=False,
        estimate=None,
        effect=None,
        notes=alike(draft.labels, model.labels),
        known=None if about is None else about.after,
    )


def _draft(model: RedModel, crossfit: Crossfit | None) -> Draft:
    return Draft.of(model, None if crossfit is None else crossfit.refused)


def _finished(
    model: RedModel,
    crossfit: Crossfit | None,
    draft: Draft,
    names: Sequence[str],
    *,
    known: Known | None,
    encoder: TextEncoder,
    notes: Sequence[str] = (),
) -> Change:
    """Balance a draft about some labels, and fit what it concerns."""
    points = label_points(draft, encoder)
    config = model.config
    draft = balanced(draft, points, config.partition.subset_size, config.seed)
    chosen = concerned(draft, points, [draft.labels.index(name) for name in names])
    return refitted(model, crossfit, draft, chosen, known=known, encoder=encoder, notes=notes)


def _roomier(draft: Draft, model: RedModel, encoder: TextEncoder) -> Draft:
    """With the last label at another near expert, where its own has more than it should."""
    label, size = len(draft.labels) - 1, model.config.partition.subset_size
    if len(draft.subsets[draft.expert_of(label)]) <= size:
        return draft
    near = near_labels(label_points(draft, encoder), label)
    position = receiving(draft, near, size)
    has_room = len(draft.subsets[position]) < size
    return draft.moved(label, position) if has_room else draft


def _behind(draft: Draft, judged: NDArray[np.bool_]) -> Draft:
    """With some rows counted as the judge's: behind those that the user labelled."""
    seed = np.arange(len(judged)) < draft.rows.n_seed
    order = np.concatenate([np.flatnonzero(seed & ~judged), np.flatnonzero(~(seed & ~judged))])
    rows = draft.rows
    moved = replace(
        rows,
        texts=tuple(rows.texts[row] for row in order),
        vectors=rows.vectors[order],
        labels=rows.labels[order],
        n_seed=int((seed & ~judged).sum()),
        origins=rows.origins[order],
        redrawn=rows.redrawn[order],
    )
    return replace(draft, rows=moved)


def _refusing(
    draft: Draft, texts: Sequence[str], vectors: NDArray[np.float32], at: Sequence[int]
) -> Draft:
    """With texts as noise of some experts."""
    refused = draft.refused
    first = len(refused.texts)
    draft = replace(
        draft,
        refused=Refused(
            texts=(*refused.texts, *texts),
            vectors=np.concatenate([refused.vectors, vectors]),
            of_expert=refused.of_expert,
        ),
    )
    for position in at:
        draft = draft.refusing(range(first, first + len(texts)), position)
    return draft


def _examples(model: RedModel, name: str, texts: Sequence[str]) -> tuple[str, ...]:
    kept = tuple(texts[at] for at in fresh(model, texts))
    if not kept:
        raise DataError(f"the label {name!r} needs at least one example")
    return kept


def _left_out(n: int, name: str) -> tuple[str, ...]:
    if not n:
        return ()
    rows = "1 row" if n == 1 else f"{n} rows"
    return (f"{rows} of {name!r} left: no part was named for them",)


def _known(known: KnownRows | None, names: Mapping[str, str]) -> Known | None:
    """Calibration rows under other names."""
    if known is None:
        return None
    rows = known.rows.named(lambda _, label: names.get(label, label))
    return Known(known, replace(known, rows=rows))


def _known_parts(
    known: KnownRows | None, name: str, part_of: Mapping[str, str | None]
) -> Known | None:
    """Calibration rows after a split: those of no part leave."""
    if known is None:
        return None
    rows = known.rows.named(
        lambda text, label: part_of.get(text_key(text)) if label == name else label
    )
    return Known(known, replace(known, rows=rows))


def _without(known: KnownRows, name: str, *, as_strange: bool = False) -> KnownRows:
    """Calibration rows without a label, perhaps as texts that fit none."""
    gone = known.rows.of(name) if as_strange else ()
    rows = known.rows.named(lambda _, label: None if label == name else label)
    return KnownRows(rows, (*known.out_of_scope, *gone))
