"""`red-ray modes`: what each mode sets, and whether its encoder is here."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json
from red_ray.config import PRESETS
from red_ray.encoding.files import find_here

WORTH = {
    "speed": "a laptop; most of what docs/measured.md holds",
    "balanced": "the reference's own; an encoder five times as large",
    "accuracy": "the most that few labels can buy; minutes of fine-tuning, two passes for a text",
}


def modes(as_json: Json = False) -> None:
    """Show what each mode sets; any of it can be overridden by --config and --set."""
    output = Output(as_json=as_json)
    with guarded(output):
        here = {mode: find_here(sets["encoder"]["model"]) for mode, sets in PRESETS.items()}
        facts = {
            mode: {"sets": sets, "encoder_here": here[mode] is not None, "for": WORTH[mode]}
            for mode, sets in PRESETS.items()
        }
        output.result(facts)
        if as_json:
            return
        table = Table(box=None, padding=(0, 2), header_style="dim")
        table.add_column("")
        for mode in PRESETS:
            table.add_column(mode, overflow="fold")
        for key in dict.fromkeys(key for sets in PRESETS.values() for key in _flat(sets)):
            values = [_flat(sets).get(key) for sets in PRESETS.values()]
            table.add_row(key, *("–" if value is None else _shown(value) for value in values))
        table.add_row("for", *(WORTH[mode] for mode in PRESETS))
        table.add_row("encoder here", *("yes" if here[mode] else "no" for mode in PRESETS))
        output.out.print(table)
        _say_how(output, [mode for mode in PRESETS if here[mode] is None])


def _flat(sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{name}.{key}": value for name, keys in sets.items() for key, value in keys.items()}


def _shown(value: object) -> str:
    return str(value).replace("\n", "\\n")


def _say_how(output: Output, missing: list[str]) -> None:
    """How to get the encoders that are not here."""
    for mode in missing:
        model = PRESETS[mode]["encoder"]["model"]
        repo = model if "/" in model else f"sentence-transformers/{model}"
        output.out.print(
            f"{mode}: where the hub can be reached, `hf download {repo} --local-dir FOLDER`, then "
            f"--mode {mode} --set encoder.model=FOLDER",
            style="dim",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
