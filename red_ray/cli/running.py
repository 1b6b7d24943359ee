"""A run from rows to report, as `train` and `demo` both do it."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from red_ray.cli.console import Output, notes
from red_ray.config import RunConfig
from red_ray.data.inputs import Inputs, TestRows
from red_ray.run_folder import RunFolder

if TYPE_CHECKING:
    from red_ray.actors.run import ClusterRun
    from red_ray.training import Trained, TrainingJob
    from red_ray.types import Progress as Step


def run_training(
    output: Output,
    config: RunConfig,
    inputs: Inputs,
    test: TestRows | None,
    out: Path,
    *,
    overwrite: bool,
    dashboard: bool,
) -> dict[str, Any]:
    """Train on Ray, keep the bundle, score the test rows, write the report.

    Returns:
        The scorecard, or without test rows the estimates of the cross-fitted training rows.
    """
    check_parts(config, inputs)
    run = RunFolder.create(out, config, overwrite=overwrite)
    with run.replacing():
        run.write_seen(inputs.seen_keys)
        notes(output, (*inputs.notes, *(test.notes if test else ())))
        result = _train_and_score(output, run, config, inputs, test, dashboard=dashboard)
    return {"run": str(out), **result}


def _train_and_score(
    output: Output,
    run: RunFolder,
    config: RunConfig,
    inputs: Inputs,
    test: TestRows | None,
    *,
    dashboard: bool,
) -> dict[str, Any]:
    # Before Ray is imported: it reads its settings then.
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from red_ray.actors.cluster import ray_session
    from red_ray.actors.run import train_on_cluster
    from red_ray.bundle import save_bundle
    from red_ray.evaluation.report import write_report

    def show(step: Step) -> None:
        if step.iteration is not None:
            run.append(step.iteration)
        steps.show(step)

    start = perf_counter()
    output.note("starting Ray")
    with ray_session(dashboard=dashboard) as url, output.steps() as steps:
        if url:
            token = os.environ.get("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
            output.note(f"Ray's dashboard: {url}; it asks for the token in {token}")
        done = train_on_cluster(
            _job(config, inputs),
            ledger=str(run.ledger),
            hidden=inputs.hidden or None,
            on_progress=show,
        )
        facts = _provenance(done.trained, total_s=perf_counter() - start)
        bundle_id = save_bundle(done.trained.model, run.bundle, facts)
        card = _evaluated(run, done, config, test)
    write_report(run.path)
    _warn_of_loss(output, done.trained)
    result = card if card is not None else {"estimate": asdict(done.trained.estimate)}
    return {"bundle": bundle_id, **result}


def _job(config: RunConfig, inputs: Inputs) -> TrainingJob:
    from red_ray.training import TrainingJob

    # Without a judge nobody asks about the pool, and encoding it would be for nothing.
    pool = inputs.pool if config.judge.spec else ()
    rows = inputs.train
    return TrainingJob(rows.texts, rows.labels, pool, dict(inputs.descriptions), config)


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
    if trained.iterations and last.log_likelihood < first.log_likelihood:
        output.note(
            f"the judge's labels made the model worse: estimated accuracy {first.accuracy:.1%} "
            f"before, {last.accuracy:.1%} after; look at some of them, or train without this judge"
        )


def check_parts(config: RunConfig, inputs: Inputs) -> None:
    """Find what cannot work before anything is started or written.

    Raises:
        ConfigError: the judge is unknown, or lacks what it needs.
        EncoderError: the encoder is not to be had.
    """
    from red_ray.encoding import resolve_spec
    from red_ray.judges import make_judge

    if config.judge.spec:
        hidden = inputs.hidden.of if inputs.hidden or not inputs.pool else None
        make_judge(config.judge, seed=config.seed, hidden=hidden, votes=lambda _: ())
    if not os.environ.get("RAY_ADDRESS"):  # else the workers' machines are the ones that need it
        resolve_spec(config.encoder)


def _evaluated(
    run: RunFolder, done: ClusterRun, config: RunConfig, test: TestRows | None
) -> dict[str, Any] | None:
    from red_ray.evaluation.details import run_details

    details = run_details(done.trained, config.judge.spec)
    run.write_json("details.json", details)
    if test is None:
        return None
    return score_rows(run, done.trained.model, test, done.encoder)


def score_rows(run: RunFolder, model: Any, test: TestRows, encoder: Any) -> dict[str, Any]:
    """Score test rows and keep the scorecard with its details in the run's folder."""
    from red_ray.bundle import read_provenance, write_provenance
    from red_ray.evaluation.details import test_details
    from red_ray.evaluation.predictions import predict_rows
    from red_ray.evaluation.scorecard import RunFacts, scorecard

    rows = predict_rows(model, test.rows.texts, test.rows.labels, test.out_of_scope, encoder)
    provenance = read_provenance(run.bundle)
    facts = RunFacts(
        iterations=run.iterations(),
        judge_spec=model.config.judge.spec,
        n_dropped=test.n_dropped,
        timing_s=provenance.get("timing_s", {}),
    )
    card = scorecard(model, rows, facts)
    run.write_json("scorecard.json", card)
    run.write_json("details.json", run.read_json("details.json") | test_details(model, rows))
    write_provenance(run.bundle, provenance | {"scorecard": card})
    return card
