"""What a ledger says of its judges, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from red_ray.judges.ledger import UNKNOWN, Ledger, RequestCounts

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def ledger_stats(ledger: Ledger) -> dict[str, Any]:
    """Counts, cost and latency by judge, as `--json` prints them.

    Latencies are of all requests of which it is known what came, failed ones included.

    Raises:
        StorageError: the ledger cannot be read.
    """
    outcomes, requests = ledger.outcomes_by_judge(), ledger.requests_by_judge()
    none = RequestCounts({}, 0, None)
    return {
        "judges": {
            judge: {
                "verdicts": outcomes.get(judge, {}),
                **_costs(requests.get(judge, none)),
                "latency_ms": _latency(ledger.latencies_ms(judge)),
            }
            for judge in sorted(outcomes | requests)
        },
        "human_verdicts": sum(1 for _ in ledger.humans()),
    }


def stats_table(stats: Mapping[str, Any]) -> Table:
    """The stats for a terminal."""
    grid = Table.grid(padding=(0, 3))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for judge, facts in stats["judges"].items():
        grid.add_row("judge", f"[bold]{escape(judge)}[/]")
        for name, value in _facts(facts):
            grid.add_row(name, escape(value))
        grid.add_row()
    grid.add_row("answers of people", f"{stats['human_verdicts']:,}")
    return grid


def _costs(counts: RequestCounts) -> dict[str, Any]:
    known = {result: n for result, n in counts.results.items() if result != UNKNOWN}
    return {
        "requests": counts.requests,
        "results": known,
        "result_unknown": counts.results.get(UNKNOWN, 0),
        "tokens": counts.tokens,
        "cost_usd": counts.cost_usd,
    }


def _latency(latencies_ms: list[float]) -> dict[str, float] | None:
    if not latencies_ms:
        return None
    values = np.quantile(latencies_ms, list(_QUANTILES.values()))
    return {name: round(float(ms), 1) for name, ms in zip(_QUANTILES, values, strict=True)}


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    verdicts, latency, cost = facts["verdicts"], facts["latency_ms"], facts["cost_usd"]
    lines = [
        ("verdicts", _counts(sum(verdicts.values()), verdicts)),
        ("requests", _counts(facts["requests"], facts["results"])),
    ]
    if facts["result_unknown"]:
        lines.append(
            ("  result unknown", f"{facts['result_unknown']:,}, counted with their estimate")
        )
    lines.append(("tokens", f"{facts['tokens']:,}"))
    lines.append(("USD", "no price known" if cost is None else f"{cost:,.4f}"))
    if latency:
        lines.append(("latency", ", ".join(f"{name} {ms:,.0f} ms" for name, ms in latency.items())))
    return lines


def _counts(total: int, parts: Mapping[str, int]) -> str:
    most_first = sorted(parts.items(), key=lambda part: -part[1])
    words = ", ".join(f"{n:,} {name}" for name, n in most_first)
    return f"{total:,}" + (f": {words}" if words else "")
