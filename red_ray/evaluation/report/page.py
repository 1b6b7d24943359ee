"""From a run folder to its page, and the page to its file."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from red_ray.evaluation.report import escalated, figures, headline, loop, quality, record
from red_ray.evaluation.report.source import RunFiles, read_run
from red_ray.storage import writing

_PACKAGE = "red_ray.evaluation"
_PAGE = "report.html.j2"
_STYLE = "report.css"
_SCRIPT = "report_script.html.j2"  # no template: it is named so to be packaged with them


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder.

    The page is one file that loads nothing. What the run lacks is told in a line that says
    what would bring it. The file is whole or, if writing fails, what it was before.

    Args:
        run: the folder of a run, with at least its `config.yaml`.

    Returns:
        The path of the page.

    Raises:
        DataError: `config.yaml` is not there, or a file of the run is damaged.
        OutputError: the page cannot be written.
        StorageError: the disk is full.
    """
    page = render(read_run(run))
    target = run / "report.html"
    _write_whole(target, page.encode("utf-8", errors="replace"))
    return target


def render(found: RunFiles) -> str:
    """The page of a run as HTML; every text of the run is escaped."""
    environment = Environment(
        loader=PackageLoader(_PACKAGE, package_path=""),
        autoescape=True,  # texts and labels are users' and may be hostile
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _resource(_SCRIPT)
    return environment.get_template(_PAGE).render(
        style=Markup(_resource(_STYLE)),
        script=Markup(script),
        script_hash=_hash(script),
        **_views(found),
    )


def _views(found: RunFiles) -> dict[str, Any]:
    details = found.details
    return {
        "run": found,
        "details": details,
        "headline": headline.headline(found),
        "learning": loop.learning_charts(found),
        "no_loop": loop.no_loop(found),
        "judge": loop.judge_view(found),
        "confusions": quality.confusions(details),
        "calibration": quality.calibration(found),
        "escalation": quality.escalation(found),
        "escalated": escalated.escalated(found.scorecard),
        "none_view": quality.none_of_the_above(found),
        "experts": details.experts if details else (),
        "labels": quality.weakest_first(details.labels) if details else (),
        "timing": record.timing(found.scorecard),
        "settings": record.settings(found.config),
        "versions": record.versions(found),
        "rate_cell": quality.rate_cell,
        "count": figures.count,
        "plural": figures.plural,
    }


def _resource(name: str) -> str:
    return resources(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's policy allows to run: this script and, should a text slip by, no other."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return base64.b64encode(digest).decode("ascii")


def _write_whole(target: Path, data: bytes) -> None:
    # Behind a symbolic link it is the file that is replaced, not the link.
    place = Path(os.path.realpath(target))
    hidden = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.part")
    with writing(target):
        try:
            with hidden.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # before the rename: no crash leaves an empty page
            hidden.replace(place)
        finally:
            hidden.unlink(missing_ok=True)
