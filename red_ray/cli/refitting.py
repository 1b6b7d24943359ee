"""Refits experts on labelled recent texts: `drift --refit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from red_ray.cli.changing import ChangingRun
from red_ray.cli.console import Output
from red_ray.cli.escalating import asking, settings_of, telling, told_of
from red_ray.cli.show_label import change_facts, print_change
from red_ray.core.text import text_key
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import ConfigError, DataError
from red_ray.judges.spec import is_simulated
from red_ray.types import Outcome

if TYPE_CHECKING:
    from red_ray.config import RunConfig
    from red_ray.evaluation.drift_refit import Lessons
    from red_ray.evaluation.drift_rows import DriftRows
    from red_ray.judges import Judge
    from red_ray.types import Verdict


def judge_for(
    change: ChangingRun, spec: str, assignments: list[str] | None, truth: HiddenLabels
) -> tuple[RunConfig, Judge]:
    """The judge and its settings; nothing is asked yet.

    Args:
        change: of the run.
        spec: whom to ask.
        assignments: of judge settings.
        truth: labels of the recent texts, for a simulated judge alone.

    Raises:
        ConfigError: it is unknown, or only plays one and there are no labels.
    """
    from red_ray.escalation import judge_of

    state = change.run
    command = f"red-ray drift {state.folder.name} --refit"
    config = settings_of(state.folder, spec, assignments, command)
    if is_simulated(spec) and not truth:
        raise ConfigError(
            f"judge {spec!r} only plays one and needs the truth: give the recent texts a column "
            f"{config.label_column!r}, or ask a language model (--judge ollama:MODEL)"
        )
    return config, judge_of(config, state.model, truth)


def ask_about(
    change: ChangingRun, judge: tuple[RunConfig, Judge], rows: DriftRows
) -> dict[str, str | None]:
    """What a judge says of some texts, over the run's ledger: nothing is paid twice.

    Returns:
        Its labels by `text_key`, None where it says that none fits; a text without an answer is
        left out.

    Raises:
        ConfigError: its budget is used up.
        JudgeError: it cannot be asked.
    """
    state, (config, asked) = change.run, judge
    seen = state.model.assess(rows.texts, rows.vectors)
    with (
        telling(change.output, "asking the judge") as (_, tell),
        asking(config, state.folder, state.model, asked, tell) as opened,
    ):
        question = opened.escalator.ask(rows.texts, rows.vectors, seen)
        verdicts = opened.loop.submit(question).result()
        change.output.note(f"asked {told_of(opened.facts())}")
    n_unasked = verdicts.count(None)
    if n_unasked == len(verdicts):
        raise ConfigError(opened.unasked(n_unasked))
    change.output.note(_came_of(verdicts))
    if n_unasked:
        change.output.note(opened.unasked(n_unasked))
    pairs = zip(map(text_key, rows.texts), verdicts, strict=True)
    usable = (Outcome.LABEL, Outcome.NONE)
    return {key: one.label for key, one in pairs if one is not None and one.outcome in usable}


def put_lessons(
    output: Output,
    change: ChangingRun,
    positions: Sequence[int],
    taught: Lessons,
    *,
    judged: bool,
    n_apart: int,
) -> dict[str, Any]:
    """Refit some experts on what they are taught, and put the result in place.

    Args:
        output: where to tell of it.
        change: of the run.
        positions: of the experts.
        taught: what teaches them.
        judged: whether a judge labelled it, and not the user.
        n_apart: texts that were not to be learned, as the run knows them already.

    Raises:
        DataError: they are taught nothing.
    """
    from red_ray import labels
    from red_ray.labels.rows import with_learned
    from red_ray.model import expert_name

    state = change.run
    names = ", ".join(expert_name(position) for position in positions)
    others = [
        (n_apart, "are what the run learned, or is tested or calibrated on"),
        (taught.n_elsewhere, "are of other experts' labels"),
        (taught.n_unknown, "are of no label that the model knows: red-ray label add"),
        (taught.n_none, "fit no label"),
    ]
    left_out = [f"{n:,} {words}" for n, words in others if n]
    if not taught.texts:
        raise DataError("; ".join([f"no recent text is left to teach {names}", *left_out]))
    for line in left_out:
        output.note(f"left out: {line}")
    output.note(f"refitting {names} on {len(taught.texts):,} labelled recent texts more")
    done = labels.refit(
        state.model,
        state.crossfit,
        positions,
        examples=labels.Examples(taught.texts, taught.labels, judged),
        known=state.rows.inputs.calibration,
        encoder=change.encoder,
    )
    keys = frozenset(map(text_key, taught.texts))
    what = f"refit {names} after drift"
    rows = with_learned(state.rows, LabelledRows(taught.texts, taught.labels), judged=judged)
    model = change.put(done, rows, what, keys)
    name = state.folder.name
    if not output.as_json:
        output.out.print()
        print_change(output, name, what, model, done)
    return change_facts(name, what, model, done) | {"n_taught": dict(Counter(taught.labels))}


def _came_of(verdicts: Sequence[Verdict | None]) -> str:
    found: Mapping[str, int] = Counter(
        "not asked" if one is None else str(one.outcome) for one in verdicts
    )
    words = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(found.items()))
    return f"of {len(verdicts):,} texts: {words}"
