"""The program: its verbs, and what an error becomes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from red_ray.cli.classify import classify
from red_ray.cli.demo import demo
from red_ray.cli.down import down
from red_ray.cli.drift import drift
from red_ray.cli.evaluate import evaluate
from red_ray.cli.judge import judge
from red_ray.cli.label import label
from red_ray.cli.ledger import ledger
from red_ray.cli.modes import modes
from red_ray.cli.report import report
from red_ray.cli.resume import resume
from red_ray.cli.serve import serve
from red_ray.cli.status import status
from red_ray.cli.thresholds import thresholds
from red_ray.cli.train import train
from red_ray.cli.tune import tune
from red_ray.cli.up import up

app = typer.Typer(
    name="red-ray",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("red-ray"))
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Many labels, few examples: a classifier that asks a language model only where it pays."""


_LEARNING = (demo, train, resume, evaluate, classify, thresholds, drift, report, tune, modes)
_RUNNING = (serve, up, status, down)

for verb in (*_LEARNING, *_RUNNING):
    app.command()(verb)
app.add_typer(judge, name="judge")
app.add_typer(label, name="label")
app.add_typer(ledger, name="ledger")
