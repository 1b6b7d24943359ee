"""A run from rows to report, as `train`, `resume` and `demo` do it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from red_ray.address import Remote, is_address, is_folder, shown
from red_ray.cli.console import Output, catch_sigterm, kept_note, notes
from red_ray.cli.options import overrides_of
from red_ray.config import LIMITS, RunConfig, changes, load_config, with_limits
from red_ray.data.inputs import Inputs, TestRows
from red_ray.errors import ConfigError, GoalError, RedRayError
from red_ray.judges.ledger import Ledger, is_url
from red_ray.run_folder import DISPUTED, RunFolder
from red_ray.working_copy import Place, PlaceTaken, WorkingCopy

if TYPE_CHECKING:
    from red_ray.actors.run import ClusterRun
    from red_ray.snapshot import Snapshot
    from red_ray.training import Trained, TrainingJob
    from red_ray.types import Progress as Step


def run_training(
    output: Output,
    config: RunConfig,
    inputs: Inputs,
    test: TestRows | None,
    out: Place,
    *,
    overwrite: bool,
    dashboard: bool,
) -> dict[str, Any]:
    """Train on Ray, keep the bundle, score the test rows, write the report.

    Returns:
        The scorecard, or without test rows the estimates of the cross-fitted training rows.
    """
    from red_ray.snapshot import Snapshot, write_snapshot

    check_parts(config, inputs)
    check_nobody_asks(config, out)
    keep = _has_unheard_answers(config, out)
    run = RunFolder.create(out, config, overwrite=overwrite, keep_answers=keep)
    _tell_of_answers(output, run)
    with _replacing(output, run):
        run.write_seen(inputs.seen_keys)
        write_snapshot(run.path, Snapshot(inputs, test))
        run.save()
        notes(output, (*inputs.notes, *(test.notes if test else ())))
        rows = Snapshot(inputs, test)
        result, fault = _train_and_score(output, run, config, rows, dashboard=dashboard)
    return _with_thresholds(run, result, fault)


def resume_training(
    output: Output, place: Place, assignments: list[str] | None = None, *, dashboard: bool
) -> dict[str, Any]:
    """Go on with a run that was cut short: again from its rows, with the ledger's answers.

    Args:
        output: told of the steps.
        place: the run's folder.
        assignments: other limits of the judge.
        dashboard: whether Ray has one, where it is started for this.
    """
    from red_ray.snapshot import read_snapshot

    path, keep, changed = RunFolder(place).path, False, None
    if (path / "config.yaml").exists():
        config = load_config(path / "config.yaml")
        if assignments:
            config = changed = with_limits(config, overrides_of(assignments, {}))
        check_nobody_asks(config, place)
        keep = _has_unheard_answers(config, place)
    run, n_done = RunFolder.resume(place, keep_answers=keep, config=changed)
    _tell_of_answers(output, run)
    rows = read_snapshot(path)
    config = load_config(path / "config.yaml")
    _tell_of_changes(output, run, config)
    with _replacing(output, run):
        run.save()
        output.note(f"{n_done} finished iterations are run again, from the ledger")
        result, fault = _train_and_score(
            output, run, config, rows, n_done=n_done, dashboard=dashboard
        )
    return _with_thresholds(run, result, fault)


def _tell_of_changes(output: Output, run: RunFolder, config: RunConfig) -> None:
    """Say so where config.yaml is not what the run was begun with."""
    if run.begun_with is None:
        return
    found = changes(run.begun_with, config.model_dump(mode="json"))
    deciding = [key for key in found if not key.startswith(LIMITS)]
    if deciding:
        output.note(
            f"config.yaml was changed since the run began ({', '.join(deciding)}): its result will "
            "be another one than it would have had"
        )


def _has_unheard_answers(config: RunConfig, out: Place) -> bool:
    from red_ray.evaluation.answers import holds_unheard_answers

    disputed = RunFolder(out).path / DISPUTED
    if not disputed.exists():
        return False
    with opened_ledger(config, out) as ledger:
        return holds_unheard_answers(disputed, ledger)


def _tell_of_answers(output: Output, run: RunFolder) -> None:
    if run.kept_answers is not None:
        output.note(kept_note(run.shown(run.kept_answers), run.name))


@contextmanager
def _replacing(output: Output, run: RunFolder) -> Iterator[None]:
    """As `RunFolder.replacing`; says what a failure or an interruption left to go on with."""
    try:
        with run.replacing():
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and run.is_resumable:
            error.args = (f"stopped; `red-ray resume {run.name}` goes on with it",)
        if run.was_put_back:
            output.note(
                "the finished run that stood here is back, and nothing is there to resume; run "
                "the same command again: what was paid for is in the ledger"
            )
        raise


def _train_and_score(
    output: Output,
    run: RunFolder,
    config: RunConfig,
    rows: Snapshot,
    *,
    n_done: int = 0,
    dashboard: bool,
) -> tuple[dict[str, Any], GoalError | None]:
    # Before Ray is imported: it reads its settings then.
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from red_ray.actors.cluster import ray_session
    from red_ray.actors.run import LedgerOfRun, train_on_cluster
    from red_ray.bundle import save_bundle
    from red_ray.crossfit_file import save_crossfit, save_encoders
    from red_ray.evaluation.report import write_report

    def show(step: Step) -> None:
        if step.iteration is not None:
            run.append(step.iteration)
        steps.show(step)

    start = perf_counter()
    output.note(beginning())
    # Ray tells of a worker's death on stdout, where the result stands alone.
    with (
        redirect_stdout(sys.stderr),
        ray_session(dashboard=dashboard) as url,
        output.steps() as steps,
    ):
        catch_sigterm()  # Ray took it
        if url:
            token = os.environ.get("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
            output.note(f"Ray's dashboard: {url}; it asks for the token in {token}")
        done = train_on_cluster(
            _job(config, rows.inputs),
            ledger=LedgerOfRun(ledger_of(config, run), run.run_id, n_done),
            hidden=rows.inputs.hidden or None,
            on_progress=show,
            name=run.short_name,
        )
        rows = _without_written(output, run, done.trained, rows)
        done, fault = _with_goal(done, config, rows.inputs)
        facts = _provenance(done.trained, total_s=perf_counter() - start)
        crossfit = done.trained.crossfit
        save_crossfit(run.path, done.trained.model, crossfit)
        save_encoders(run.path, () if crossfit is None else crossfit.encoders)
        bundle_id = save_bundle(done.trained.model, run.bundle, facts)
        _save_now_or_later(output, run)
        card = _evaluated(run, done, config, rows)
    write_report(run.path)
    run.finish()
    _save_now_or_later(output, run)
    _warn_of_loss(output, done.trained)
    _tell_of_disputes(output, run)
    if card is None:
        judge = run.read_json("details.json").get("judge")
        by = done.trained.model.labelled_by
        result = {"estimate": asdict(done.trained.estimate), "labelled_by": by, "judge": judge}
    else:
        result = card
    return {"run": run.name, "bundle": bundle_id, **result}, fault


def _without_written(output: Output, run: RunFolder, trained: Trained, rows: Snapshot) -> Snapshot:
    """Keep what the judge wrote, for people to read; the rows, without a test row that it is.

    From now on the learned ones count as texts that have a say in the model.
    """
    from red_ray.snapshot import write_snapshot

    if not trained.paraphrases:
        return rows
    run.write_paraphrases(asdict(one) for one in trained.paraphrases)
    run.write_seen(run.seen() | trained.learned_keys)
    test = None if rows.test is None else rows.test.without(trained.learned_keys)
    if test == rows.test:
        return rows
    output.note("test rows that a learned paraphrase repeats do not count")
    write_snapshot(run.path, replace(rows, test=test))
    return replace(rows, test=test)


def _save_now_or_later(output: Output, run: RunFolder) -> None:
    """Copy a trained run to its address; where that fails, the command's end tries again.

    An error here would put the run before back in place of the new one.

    Raises:
        PlaceTaken: another process writes at its address.
    """
    try:
        run.save()
    except PlaceTaken:
        raise
    except RedRayError as error:
        output.note(f"the trained run is not copied yet: {error}")


def beginning() -> str:
    """What to say before Ray is there: that takes some seconds."""
    address = os.environ.get("RAY_ADDRESS")
    return f"joining the Ray cluster at {address}" if address else "starting Ray"


def _with_thresholds(
    run: RunFolder, result: dict[str, Any], fault: GoalError | None
) -> dict[str, Any]:
    """The result, where the goal could be kept; raised once the run is safe in its folder."""
    if fault is None:
        return result
    raise GoalError(
        f"{fault}; the model is trained and stands in {run.name!r}, with a report, but without "
        "thresholds: `red-ray thresholds` sets them"
    )


def _with_goal(
    done: ClusterRun, config: RunConfig, inputs: Inputs
) -> tuple[ClusterRun, GoalError | None]:
    """The run's model with its thresholds, or why there are none: what was paid for stays."""
    goal = config.router.goal
    if goal is None:
        return done, None
    from red_ray.calibration import with_goal

    confidence = config.router.confidence
    try:
        model = with_goal(
            done.trained.model, goal, confidence, inputs.calibration, lambda: done.encoder
        )
    except GoalError as fault:
        return done, fault
    return replace(done, trained=replace(done.trained, model=model)), None


def listen_to_people(config: RunConfig, inputs: Inputs, out: Place) -> Inputs:
    """Let what people said, as the run's ledger has it, outrank the files."""
    from red_ray.data.people import of_this_run, with_people

    with opened_ledger(config, out) as ledger:
        if ledger is None:
            return inputs
        said = ((one.text, one.label) for one in ledger.humans())
        # A database may be that of several projects; the run's own file is its own.
        return with_people(inputs, of_this_run(inputs, said) if config.judge.ledger else said)


@contextmanager
def opened_ledger(config: RunConfig, out: Place) -> Iterator[Ledger | None]:
    """The ledger of the run in `out`; None where it has none yet, and none is made."""
    run = RunFolder(out)
    place = config.judge.ledger or str(run.ledger)
    if not is_url(place) and (run.is_copy or not Path(place).is_file()):
        yield None
        return
    with closing(Ledger(place)) as ledger:
        yield ledger


def ledger_of(config: RunConfig, run: RunFolder) -> str:
    """Where the run's verdicts are: the database that the configuration names, or its own file.

    Raises:
        ConfigError: it would be a file, and the run is at an address.
    """
    if run.is_copy and config.judge.spec is not None:
        check_ledger(config, run.name)
    return config.judge.ledger or str(run.ledger)


def check_ledger(config: RunConfig, out: str) -> None:
    """Refuse a judge where there is no place for what it says.

    Raises:
        ConfigError: the run is at an address, and its ledger would be a file; or it is none.
    """
    if is_address(out) and not is_folder(out):
        Remote(out)  # no other advice helps where no file system knows it
    if is_address(out) and config.judge.spec is not None and not is_url(config.judge.ledger or ""):
        raise ConfigError(
            f"the ledger of a run at {shown(out)!r} cannot be a file: name a database, as --set "
            "judge.ledger=postgresql://user@host/database, or give a local folder"
        )


def check_nobody_asks(config: RunConfig, out: Place) -> None:
    """Find who asks the same judge already, before a run at an address is taken over.

    Raises:
        OutputError: another process asks it over this ledger.
    """
    from red_ray.judges import make_judge

    if config.judge.spec is None or not isinstance(out, WorkingCopy):
        return
    judge = make_judge(config.judge, seed=config.seed, hidden=lambda _: None, votes=lambda _: ())
    with closing(Ledger(ledger_of(config, RunFolder(out)))) as ledger:
        ledger.lease(judge.name).release()


def _job(config: RunConfig, inputs: Inputs) -> TrainingJob:
    from red_ray.training import TrainingJob

    return TrainingJob.of(config, inputs, pool=bool(config.judge.spec))


def _provenance(trained: Trained, *, total_s: float) -> dict[str, Any]:
    """What a bundle says of its making that is no part of its id."""
    from red_ray.evaluation.scorecard import versions

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "versions": versions(),
        "timing_s": dict(trained.timing_s) | {"total": total_s},
    }


def _warn_of_loss(output: Output, trained: Trained) -> None:
    """Say so where the judge's rows made the model worse on the rows that the user labelled."""
    first, last = trained.first_estimate, trained.estimate
    if trained.model.labelled_by != "user":  # there is no row to say so by
        return
    if not trained.iterations or last.log_likelihood >= first.log_likelihood:
        return
    figures = [(f"{one.log_likelihood:.3f}", f"{one.accuracy:.1%}") for one in (first, last)]
    (likelihood, accuracy), (likelihood_after, accuracy_after) = figures
    if last.accuracy < first.accuracy and accuracy != accuracy_after:
        told = f"estimated accuracy {accuracy} before, {accuracy_after} after"
    elif likelihood != likelihood_after:
        told = f"estimated log-likelihood {likelihood} before, {likelihood_after} after"
    else:
        return
    output.note(
        f"the judge's labels made the model worse: {told}; look at some of them, or train "
        "without this judge"
    )


def check_parts(config: RunConfig, inputs: Inputs) -> None:
    """Find what cannot work before anything is started or written.

    Raises:
        ConfigError: the judge is unknown, or lacks what it needs.
        EncoderError: the encoder is not to be had.
    """
    from red_ray.encoding import resolve_spec

    check_judge(config, inputs)
    if not os.environ.get("RAY_ADDRESS"):  # else the workers' machines are the ones that need it
        resolve_spec(config.encoder)


def check_judge(config: RunConfig, inputs: Inputs) -> None:
    """Find a judge that cannot be asked.

    Raises:
        ConfigError: it is unknown, or lacks what it needs.
    """
    from red_ray.judges import make_judge

    if config.judge.spec:
        hidden = inputs.hidden.of if inputs.hidden or not inputs.pool else None
        make_judge(config.judge, seed=config.seed, hidden=hidden, votes=lambda _: ())


def _evaluated(
    run: RunFolder, done: ClusterRun, config: RunConfig, rows: Snapshot
) -> dict[str, Any] | None:
    from red_ray.evaluation.details import run_details

    details = run_details(done.trained, config.judge.spec)
    run.write_json("details.json", details | _after_the_loop(run, done, config, rows.inputs))
    if rows.test is None:
        return None
    return score_rows(run, done.trained.model, rows.test, done.encoder)


def _tell_of_disputes(output: Output, run: RunFolder) -> None:
    n_disputed = run.read_json("details.json").get("n_disputed", 0)
    if n_disputed:
        output.note(
            f"{n_disputed} disputed labels in {run.shown(run.path / DISPUTED)}: fill in `answer`, "
            f"then `red-ray ledger import {run.name} --input …` and train again with --overwrite"
        )


def _after_the_loop(
    run: RunFolder, done: ClusterRun, config: RunConfig, inputs: Inputs
) -> dict[str, Any]:
    """What the ledger says of the run, and for a person the labels that are disputed."""
    from red_ray.evaluation.disputes import write_disputes
    from red_ray.evaluation.scorecard import JudgeBill, RunFacts, judge_card

    if done.judge is None:
        return {}
    path, disputes = run.path / "disputed.csv", done.trained.disputes
    texts = (*inputs.train.texts, *inputs.judged.texts, *inputs.pool)
    with closing(Ledger(ledger_of(config, run))) as ledger:
        bill = ledger.requests_of(run.run_id)
        n_disputed = write_disputes(path, disputes, ledger, texts=texts)
    facts = RunFacts(run.iterations(), config.judge.spec, 0, {}, JudgeBill(**asdict(bill)))
    return {"bill": asdict(bill), "judge": judge_card(facts), "n_disputed": n_disputed}


def _still_true(run: RunFolder, card: dict[str, Any]) -> dict[str, Any] | None:
    """What a judge's answers were worth on these rows by this model, whatever the thresholds."""
    if not (run.path / "scorecard.json").exists():
        return None
    before = run.read_json("scorecard.json")
    same = all(before.get(name) == card[name] for name in ("n_test", "accuracy", "macro_f1"))
    escalation: dict[str, Any] | None = before.get("escalation") if same else None
    return escalation


def score_rows(run: RunFolder, model: Any, test: TestRows, encoder: Any) -> dict[str, Any]:
    """Score test rows and keep the scorecard with its details in the run's folder."""
    from red_ray.bundle import read_provenance
    from red_ray.evaluation.details import test_details
    from red_ray.evaluation.predictions import predict_rows
    from red_ray.evaluation.scorecard import JudgeBill, RunFacts, scorecard

    rows = predict_rows(model, test.rows.texts, test.rows.labels, test.out_of_scope, encoder)
    details = run.read_json("details.json")
    bill = details.get("bill")
    facts = RunFacts(
        iterations=run.iterations(),
        judge_spec=model.config.judge.spec,
        n_dropped=test.n_dropped,
        timing_s=read_provenance(run.bundle).get("timing_s", {}),
        bill=JudgeBill(**bill) if bill else None,
    )
    card = scorecard(model, rows, facts)
    card["escalation"] = _still_true(run, card)
    run.write_json("details.json", details | test_details(model, rows))
    keep_card(run, card)
    return card


def keep_card(run: RunFolder, card: dict[str, Any]) -> None:
    """Keep the scorecard in the run's folder and in its bundle's provenance."""
    from red_ray.bundle import read_provenance, write_provenance

    run.write_json("scorecard.json", card)
    write_provenance(run.bundle, read_provenance(run.bundle) | {"scorecard": card})
