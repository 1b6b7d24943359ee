"""The program: its verbs, and what an error becomes."""

from __future__ import annotations

import typer

from red_ray.cli.classify import classify
from red_ray.cli.demo import demo
from red_ray.cli.evaluate import evaluate
from red_ray.cli.report import report
from red_ray.cli.train import train

app = typer.Typer(
    name="red-ray",
    help="Many labels, few examples: a text classifier that asks a language model only where "
    "it pays.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

for verb in (demo, train, evaluate, classify, report):
    app.command()(verb)
