"""An audit from labelled rows to its report."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.evaluation.audit.asking import AuditJob, OnProgress, ask_judges
from red_ray.evaluation.audit.folder import AuditFolder
from red_ray.evaluation.audit.page import audit_page
from red_ray.evaluation.audit.report import audit_report, disputed, disputed_columns
from red_ray.evaluation.audit.suite import build_suite


def run_audit(
    job: AuditJob, vectors: NDArray[np.float32], folder: AuditFolder, on_progress: OnProgress
) -> dict[str, Any]:
    """Declare the criteria, ask, and write down what came of it.

    Run again in the same folder, it asks only what is not known yet.

    Args:
        job: rows, judges and configuration.
        vectors: embeddings of the rows, shape (n_rows, dim), unit length.
        folder: where everything is written.
        on_progress: called while a judge is asked.

    Returns:
        The report, as `audit.json` holds it.

    Raises:
        JudgeError: a judge refuses or cannot be reached; what was answered is kept.
    """
    declared = folder.declare(job.config.audit.criteria, job.source.rows)
    suite = build_suite(job.source, vectors, job.config, job.descriptions)
    folder.write_suite(suite)
    answers = asyncio.run(ask_judges(job, suite, folder.ledger, on_progress))
    config = job.config.model_dump(mode="json")
    report = {"declared": declared, "config": config, **audit_report(job, suite, answers)}
    folder.write_disputed(disputed(suite, answers), disputed_columns(job.specs))
    folder.write_page(audit_page(report))
    folder.write_report(report)
    return report
