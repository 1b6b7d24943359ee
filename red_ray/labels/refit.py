"""Fits what a change concerns anew: few experts, the gate, and the router's few weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import wraps
from time import perf_counter
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from red_ray.config import ExpertKind, RunConfig
from red_ray.core.noise import draw_noise
from red_ray.core.text import text_key
from red_ray.data.inputs import KnownRows
from red_ray.encoding import open_encoder, plain_part
from red_ray.errors import ConfigError, DataError
from red_ray.experts import Expert, ExpertHost, ExpertSpec, FitRows
from red_ray.labels.checks import alike, fresh
from red_ray.labels.draft import NEW, Draft
from red_ray.labels.effect import Effect, measure
from red_ray.labels.folds import crossfitted, folds_of, gone_rows
from red_ray.labels.promises import with_old_goal
from red_ray.model import RedModel, TextEncoder, expert_name
from red_ray.training.crossfit import Crossfit, draw_folds
from red_ray.training.job import Estimate
from red_ray.training.router_host import RouterHost, Scores

P = ParamSpec("P")
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

N_THREADS = 2
"""Fits at a time, each with one BLAS thread: as a local fleet has."""

FITTED_ANEW = (
    "the run keeps no held-out scores of its rows (an older run, or too many labels): every expert "
    "was cross-fitted anew to weigh the router, and only the experts concerned were refitted"
)

REAL_ROWS_ALONE = (
    "the run had learned paraphrases of the judge: what was refitted, the gate among it, learned "
    "labelled rows alone"
)


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled texts that a change brings.

    Attributes:
        texts: the texts.
        labels: their labels, by name.
        judged: whether a judge labelled them, and not the user.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    judged: bool = False

    def take(self, rows: Sequence[int]) -> Examples:
        """Those at these positions."""
        texts, labels = ([some[row] for row in rows] for some in (self.texts, self.labels))
        return Examples(tuple(texts), tuple(labels), self.judged)


@dataclass(frozen=True, slots=True)
class Known:
    """Calibration rows, as they were named before a change and as they are after it."""

    before: KnownRows
    after: KnownRows


@dataclass(frozen=True, slots=True)
class Change:
    """What a change came to.

    Attributes:
        model: with the change; it has no bundle id yet.
        crossfit: what to keep beside its bundle, see `red_ray.crossfit_file`.
        experts: names of the experts that were refitted, as the changed model has them.
        gate: whether the gate was refitted.
        estimate: of the changed model, from cross-fitted training rows; None where nothing was
            fitted.
        effect: accuracy of each label before and after; None where nothing was fitted.
        notes: one line for each thing that a user should know.
        known: calibration rows after it, by their new names, where it was told of any.
        seconds: wall seconds it took, embeddings of new texts included.
    """

    model: RedModel
    crossfit: Crossfit | None
    experts: tuple[str, ...]
    gate: bool
    estimate: Estimate | None
    effect: Effect | None
    notes: tuple[str, ...]
    known: KnownRows | None = None
    seconds: float = 0.0


def timed(change: Callable[P, Change]) -> Callable[P, Change]:
    """The same change, which says how long it took."""

    @wraps(change)
    def measured(*args: P.args, **options: P.kwargs) -> Change:
        start = perf_counter()
        done = change(*args, **options)
        return replace(done, seconds=perf_counter() - start)

    return measured


@timed
def refit(
    model: RedModel,
    crossfit: Crossfit | None,
    positions: Sequence[int],
    *,
    examples: Examples | None = None,
    known: KnownRows | None = None,
    encoder: TextEncoder | None = None,
) -> Change:
    """Refit some experts of a model, and the gate where it has one; all other experts stay.

    The router is weighed anew on cross-fitted evidence, and the thresholds are derived again from
    the goal that the model has. How to use it on a run:

        run = open_run(folder)  # of `red_ray.labels.of_run`, under `folder.changing()`
        check_unseen(folder, run.rows, more.texts)  # of `red_ray.labels.rows`: the leak rule
        known = run.rows.inputs.calibration
        change = refit(run.model, run.crossfit, (3, 7), examples=more, known=known)
        more_rows = LabelledRows(more.texts, more.labels)
        rows = with_learned(run.rows, more_rows, judged=more.judged)  # of `red_ray.labels.rows`
        keep(run, change, rows, what="refit", seen=map(text_key, more.texts))

    `red_ray label undo` then goes back. A command does all of this, with the scores of the run's
    test rows and the report, by `red_ray.cli.changing.changing_run`.

    Args:
        model: trained.
        crossfit: what the run keeps of its cross-fitting, or None.
        positions: of the experts; those that hold a label of `examples` are refitted too.
        examples: more labelled rows, of labels that the model has.
        known: the run's calibration rows, where it has them.
        encoder: of the model; loaded by it where none is given.

    Raises:
        DataError: a position or a label is unknown, or a text is a labelled row already or given
            under two labels.
    """
    encoder = model.loaded_encoder if encoder is None else encoder
    unknown = sorted(set(positions) - set(range(len(model.subsets))))
    if unknown:
        raise DataError(
            f"there is no expert at position {unknown[0]}: the model has {len(model.subsets)}"
        )
    draft = Draft.of(model, crossfit.refused if crossfit is not None else None)
    if examples is not None:
        draft = _taught(draft, _once(model, examples), encoder)
    about = Known(known, known) if known is not None else None
    chosen = tuple(sorted({*positions, *draft.changed}))
    return refitted(model, crossfit, draft, chosen, known=about, encoder=encoder)


def _once(model: RedModel, examples: Examples) -> Examples:
    kept = examples.take(fresh(model, examples.texts))
    label_of = dict(zip(map(text_key, kept.texts), kept.labels, strict=True))
    pairs = zip(map(text_key, examples.texts), examples.labels, strict=True)
    n = sum(label_of[key] != label for key, label in pairs)
    if n:
        raise DataError(f"{n} of the examples stand there under another label, too: take one out")
    return kept


def _taught(draft: Draft, examples: Examples, encoder: TextEncoder) -> Draft:
    """With more labelled rows; their experts count as changed."""
    index = {name: position for position, name in enumerate(draft.labels)}
    for name in examples.labels:
        if name not in index:
            raise DataError(f"the model has no label {name!r}: add it first")
    labels = np.array([index[name] for name in examples.labels], dtype=np.int64)
    vectors = plain_part(encoder).encode(examples.texts)
    rows = draft.rows.with_more(examples.texts, vectors, labels, judged=examples.judged)
    holders = {draft.expert_of(int(label)) for label in np.unique(labels)}
    return replace(draft.with_rows(rows), changed=draft.changed | holders)


def refitted(
    before: RedModel,
    crossfit: Crossfit | None,
    draft: Draft,
    positions: Sequence[int],
    *,
    known: Known | None,
    encoder: TextEncoder,
    notes: Sequence[str] = (),
) -> Change:
    """Make a draft a model.

    Args:
        before: the model that the draft was made of.
        crossfit: of it, or None.
        draft: what it shall be.
        positions: of the experts to refit, as the draft has them.
        known: calibration rows, where the run has them.
        encoder: of the model.
        notes: what to tell beside what is found here.
    """
    draft, unseen = _without_names(before, draft)
    fits = _Fits(before, crossfit, draft, frozenset(positions), encoder)
    fits.run()
    host = RouterHost(before.config, len(draft.labels))
    rows = draft.rows
    host.load(rows.vectors, rows.texts, draft.subsets, before.space)
    everyone = np.arange(len(rows.texts))
    is_judged = before.labelled_by != "user"
    n_trusted = len(rows.texts) if is_judged else rows.n_seed
    estimate = host.calibrate(everyone, rows.labels, fits.folds, n_trusted, fits.scores, is_judged)
    parts = host.export()
    model = replace(
        before,
        labels=draft.labels,
        descriptions=draft.descriptions,
        subsets=draft.subsets,
        experts=fits.experts,
        noise_counts=fits.noise_counts,
        gate=fits.gate,
        router=parts.router,
        risk=parts.risk,
        calibration=parts.calibration,
        example_texts=rows.texts,
        example_vectors=rows.vectors,
        example_labels=rows.labels,
        n_seed=rows.n_seed,
        unseen=unseen,
        written_counts=_still_written(before, draft, positions),
        bundle_id="",
        promise=None,
        encoder=encoder,
    )
    pair = None if known is None else (known.before, known.after)
    model, told = with_old_goal(model, before, pair, encoder)
    return Change(
        model=model,
        crossfit=Crossfit(
            fits.folds,
            fits.scores.gate,
            fits.scores.experts,
            draft.refused,
            encoders=() if crossfit is None else crossfit.encoders,
            gone=gone_rows(before, crossfit, draft, fits.old_folds),
        ),
        experts=tuple(expert_name(position) for position in sorted(positions)),
        gate=fits.gate is not None,
        estimate=estimate,
        effect=measure(before, model, fits.old_folds, fits.folds, rows.origins, pair, encoder),
        notes=(
            *notes,
            *alike(draft.labels, before.labels),
            *(() if crossfit is not None else (FITTED_ANEW,)),
            *((REAL_ROWS_ALONE,) if before.written_counts else ()),
            *told,
        ),
        known=None if known is None else known.after,
    )


def _without_names(before: RedModel, draft: Draft) -> tuple[Draft, tuple[str, ...]]:
    """Without a label's name among its rows once it has a text, as in training; and the labels that
    have none.
    """
    rows, origins = draft.rows, draft.rows.origins
    unseen = [before.labels.index(name) for name in before.unseen]
    named = origins != NEW
    named[named] = np.isin(before.example_labels[origins[named]], unseen)
    left = named & np.isin(rows.labels, rows.labels[~named])
    still = np.unique(rows.labels[named & ~left])
    return draft.without_rows(left), tuple(draft.labels[label] for label in still)


class _Fits:
    """The fits of a change, and what of the earlier ones still holds.

    Attributes:
        old_folds: of the rows before the change.
        folds: of its rows.
        experts: fitted, those that are not concerned as they were.
        noise_counts: of each expert.
        gate: fitted, or None where the model has none.
        scores: held-out ones of each row.
    """

    def __init__(
        self,
        before: RedModel,
        crossfit: Crossfit | None,
        draft: Draft,
        positions: frozenset[int],
        encoder: TextEncoder,
    ) -> None:
        self._before, self._crossfit, self._draft = before, crossfit, draft
        self._seen, self._held = _tuned_vectors(before, crossfit, draft, encoder)
        self._positions = positions
        labels, n_labels = before.example_labels, len(before.labels)
        self.old_folds = (
            draw_folds(before.config, labels, before.n_seed or len(labels), n_labels)
            if crossfit is None
            else crossfit.folds
        )
        self.folds = folds_of(before, crossfit, draft, self.old_folds)
        self._crossfitted = crossfitted(crossfit, draft, positions)
        refused = len(draft.refused.texts)
        self._rows = np.arange(len(draft.rows.texts))
        self._refused_rows = len(self._rows) + np.arange(refused)
        self._noise = {position: self._draw_noise(position) for position in self._crossfitted}

    def run(self) -> None:
        """Fit; in an order of its own that changes nothing."""
        draft, config = self._draft, self._before.config
        specs = [_spec(config, draft, position) for position in self._crossfitted]
        has_gate = self._before.gate is not None
        host = ExpertHost([*specs, _gate_spec(config, draft)] if has_gate else specs)
        host.load(np.concatenate([draft.rows.vectors, draft.refused.vectors]))
        if self._seen is not None:
            for at in range(len(specs) + has_gate):
                host.load_tuned(at, self._seen)
        with ThreadPoolExecutor(N_THREADS, thread_name_prefix="labels") as threads:
            gate = self._begin(threads.submit, host, len(specs), None) if has_gate else None
            begun = {
                position: self._begin(threads.submit, host, at, position)
                for at, position in enumerate(self._crossfitted)
            }
            scores = {position: one.scores() for position, one in begun.items()}
            gate_scores = None if gate is None else gate.scores()[:, :-1]
            self.gate = None if gate is None else gate.expert()
            experts = [
                begun[position].expert()
                if position in self._positions
                else self._before.experts[draft.origins[position]]
                for position in range(len(draft.subsets))
            ]
        self.experts = tuple(experts)
        kept = [scores.get(p) for p in range(len(draft.subsets))]
        self.scores = Scores(
            gate_scores,
            tuple(self._kept(p) if one is None else one for p, one in enumerate(kept)),
        )
        self.noise_counts = tuple(self._noise_count(p) for p in range(len(draft.subsets)))

    def _begin(
        self,
        submit: Callable[..., Future[Any]],
        host: ExpertHost,
        at: int,
        position: int | None,
    ) -> _Begun:
        """The fits of an expert, or of the gate where `position` is None."""
        fit = None
        if position is None or position in self._positions:
            unfolded = np.full(len(self._rows), -1)
            fit = submit(host.fit, at, self._fit_rows(position, unfolded))
        crossfit = submit(host.crossfit, at, self._fit_rows(position, self.folds), *self._held)
        return _Begun(host, at, fit, crossfit)

    def _fit_rows(self, position: int | None, folds: Ints) -> FitRows:
        noise = refused = np.zeros(0, dtype=np.int64)
        if position is not None:
            noise = self._noise[position]
            theirs = self._draft.refused.of_expert[position]
            refused = self._refused_rows[np.array(theirs, dtype=np.int64)]
        known = np.arange(len(self._rows) + len(self._refused_rows))
        return FitRows(self._rows, self._draft.rows.labels, noise, refused, folds, known)

    def _draw_noise(self, position: int) -> Ints:
        rows, config = self._draft.rows, self._before.config
        rng = np.random.default_rng([config.seed, 1, position, len(rows.texts)])
        own = np.isin(rows.labels, self._draft.subsets[position])
        noise = config.noise
        return draw_noise(rows.vectors, own, cap=noise.cap, factor=noise.factor, rng=rng)

    def _noise_count(self, position: int) -> int:
        if position not in self._positions:
            return self._before.noise_counts[self._draft.origins[position]]
        return len(self._noise[position]) + len(self._draft.refused.of_expert[position])

    def _kept(self, position: int) -> Floats:
        """What an expert that is not cross-fitted says of each row; it never saw a new one."""
        if self._crossfit is None:
            raise RuntimeError("an expert without held-out scores is cross-fitted")
        origin, rows = self._draft.origins[position], self._draft.rows
        kept, was_there = self._crossfit.experts[origin], rows.origins != NEW
        scores = np.zeros((len(rows.texts), kept.shape[1]), dtype=np.float32)
        scores[was_there] = kept[rows.origins[was_there]]
        vectors = rows.vectors if self._seen is None else self._seen[: len(rows.texts)]
        scores[~was_there] = self._before.experts[origin].score(vectors[~was_there])
        return scores


@dataclass(frozen=True, slots=True)
class _Begun:
    """Fits of one expert under way."""

    host: ExpertHost
    at: int
    fit: Future[None] | None
    crossfit: Future[Floats]

    def scores(self) -> Floats:
        return self.crossfit.result()

    def expert(self) -> Expert:
        if self.fit is not None:
            self.fit.result()
        return self.host.export(self.at)


def _still_written(model: RedModel, draft: Draft, positions: Sequence[int]) -> tuple[int, ...]:
    """How many texts of a judge each expert has learned that stays as it was; empty for none."""
    if not model.written_counts:
        return ()
    left = tuple(
        0 if position in positions or origin == NEW else model.written_counts[origin]
        for position, origin in enumerate(draft.origins)
    )
    return left if any(left) else ()


def _tuned_vectors(
    model: RedModel, crossfit: Crossfit | None, draft: Draft, encoder: TextEncoder
) -> tuple[Floats | None, list[Floats]]:
    """What gate and experts of a fine-tuned model look at: by the encoder that saw all rows when it
    was trained, and by that of each fold; the encoders stay as they are. None and none for others.

    Raises:
        ConfigError: the run does not have the encoders of the folds.
    """
    if model.tuned is None:
        return None, []
    if crossfit is None or not crossfit.encoders:
        raise ConfigError(
            "the run does not have the encoders that were fine-tuned for each fold (its folder "
            "`encoders`), so that nothing could be said of a changed model: train again"
        )
    texts = (*draft.rows.texts, *draft.refused.texts)
    held = []
    for weights in crossfit.encoders:
        with closing(open_encoder(model.encoder_config, tuned=weights)) as of_fold:
            held.append(of_fold.encode(texts))
    return model.expert_vectors(encoder.encode(texts)), held


def _spec(config: RunConfig, draft: Draft, position: int) -> ExpertSpec:
    subset = draft.subsets[position]
    names = ", ".join(draft.labels[label] for label in subset)
    name = f"{expert_name(position)}: {names}"
    return ExpertSpec(name, subset, kind=config.expert.kind, seed=config.seed + position)


def _gate_spec(config: RunConfig, draft: Draft) -> ExpertSpec:
    n_labels = len(draft.labels)
    everything = tuple(range(n_labels))
    name = f"gate: {n_labels} labels"
    kind: ExpertKind = "setfit" if config.expert.kind == "setfit" else "logistic_regression"
    return ExpertSpec(name, everything, kind=kind, seed=config.seed)
