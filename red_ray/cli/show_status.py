"""The state of a cluster on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from red_ray.actors.head import Head
    from red_ray.actors.scrape import Figure
    from red_ray.actors.sight import Actor, Endpoint, Job, Node, Sight

N_ENDED, N_ACTORS = 3, 16
"""Ended jobs, and actors of one kind, that are shown one by one."""

SECTIONS = {
    "run": "the run",
    "loop": "the loop",
    "judge": "the judge's pool",
    "serve": "the endpoint",
    "classify": "the batch",
}
"""Headings by the first word of a metric; others stand under what they are called."""

SUBJECTS = ("run", "judge", "output")
"""Tags that tell what a metric is about: they stand in the heading."""

SHARES = (
    "progress",
    "accuracy",
    "uncertainty",
    "budget_spent",
    "escalation_share",
    "escalation_promised",
)
FLAGS = ("paused", "escalation_alarm")
"""How some metrics read, by the name behind the first word."""

STAGES = ("encode", "partition", "fit", "calibrate", "judge", "loop", "final")
"""Of a run, in their order: Ray shows one that is over for some seconds more."""

UNKNOWN_IF_ZERO = ("log_likelihood", "accuracy")
"""What no run reaches: Ray tells 0 of what was never set, or is set no more."""

PERCENTILES = {"0.5": "p50", "0.95": "p95"}

UNITS = {"_usd": " USD", "_ms": " ms", "_seconds": " s"}

STYLES = {
    "RUNNING": "green",
    "ALIVE": "green",
    "HEALTHY": "green",
    "FAILED": "red",
    "DEPLOY_FAILED": "red",
    "UNHEALTHY": "red",
    "DEAD": "red",
}

NAME_WIDTH, GAP = 24, 2


def show_status(console: Console, sight: Sight, head: Head | None, *, now_s: float) -> None:
    """Print what is seen.

    Args:
        console: at any width; names are cut to fit, nothing is folded.
        sight: of the cluster.
        head: the one of `red-ray up`, where it is that.
        now_s: seconds since 1970.
    """
    _headline(console, sight, head, now_s)
    _jobs(console, sight.jobs, now_s)
    _actors(console, sight)
    _endpoints(console, sight.endpoints)
    _figures(console, sight.figures)


def _headline(console: Console, sight: Sight, head: Head | None, now_s: float) -> None:
    about = f"Ray {sight.ray_version}"
    if head is not None:
        about += f", up for {_span(now_s - head.created_s)}, pid {head.pid}"
    _line(console, f"[bold]{sight.dashboard}[/]   {about}")
    for node in sight.nodes:
        _line(console, f"[dim]{_node(node)}[/]")


def _node(node: Node) -> str:
    role = "head" if node.is_head else "worker"
    has = _count(node.cpus, "CPU") + (f", {_count(node.gpus, 'GPU')}" if node.gpus else "")
    state = "" if node.state == "ALIVE" else f", {node.state.lower()}"
    return f"{role} {escape(node.name)}: {has}, {node.memory_gb:g} GB{state}"


def _count(n: float, what: str) -> str:
    return f"{n:g} {what}" if n == 1 else f"{n:g} {what}s"


def _jobs(console: Console, jobs: Sequence[Job], now_s: float) -> None:
    _heading(console, "jobs")
    if not jobs:
        _line(console, "  [dim]none so far[/]")
    ended = [job for job in jobs if job.is_over]
    for job in (*(job for job in jobs if not job.is_over), *ended[:N_ENDED]):
        _line(console, f"  {escape(job.id)}   {_state(job.status)}   [dim]{_when(job, now_s)}[/]")
        what = job.entrypoint or ("" if job.is_submitted else "a command that joined")
        for line in (what, job.said):
            if line:
                _line(
                    console,
                    f"    [dim]{escape(line)}[/]" if line is what else f"    {escape(line)}",
                )
    if len(ended) > N_ENDED:
        _line(console, f"  [dim]and {len(ended) - N_ENDED} that ended before[/]")


def _when(job: Job, now_s: float) -> str:
    if job.start_s is None:
        return ""
    if job.end_s is None:
        return f"for {_span(now_s - job.start_s)}"
    return f"after {_span(job.end_s - job.start_s)}, {_span(now_s - job.end_s)} ago"


def _actors(console: Console, sight: Sight) -> None:
    if not sight.actors:
        return
    with_node = len({node.name for node in sight.nodes}) > 1
    headers = ("actors", "state", "memory", "CPU", *(("node",) if with_node else ()))
    rows = [row[: len(headers)] for row in _rows(sight.actors)]
    widths = [max(cell_len(_plain(row[at])) for row in rows) for at in range(1, len(headers))]
    others = sum(max(w, len(h)) + GAP for w, h in zip(widths, headers[1:], strict=True))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("actors", no_wrap=True, max_width=max(NAME_WIDTH, console.width - others))
    for header in headers[1:]:
        is_number = header in ("memory", "CPU")
        table.add_column(header, justify="right" if is_number else "left", no_wrap=True)
    for name, *cells in rows:
        table.add_row(f"  {escape(name)}", *cells)
    console.print()
    console.print(table)


def _plain(markup: str) -> str:
    return Text.from_markup(markup).plain


def _rows(actors: Sequence[Actor]) -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each actor; many of a kind that are all well share one."""
    kinds = Counter(one.kind for one in actors if one.state == "ALIVE")
    many = [kind for kind, n in kinds.items() if n > N_ACTORS]
    for kind in many:
        ones = [one for one in actors if one.kind == kind and one.state == "ALIVE"]
        memory, cpu = _sum(one.memory_mb for one in ones), _sum(one.cpu for one in ones)
        n_nodes = len({one.node for one in ones})
        node = ones[0].node if n_nodes == 1 else f"{n_nodes} nodes"
        yield f"{len(ones)} × {kind}", _state("ALIVE"), _size(memory), _load(cpu), escape(node)
    for one in actors:
        if one.kind not in many or one.state != "ALIVE":
            state = _state(one.state) + (f", restarted {one.restarts}×" if one.restarts else "")
            yield one.name, state, _size(one.memory_mb), _load(one.cpu), escape(one.node)


def _endpoints(console: Console, endpoints: Sequence[Endpoint]) -> None:
    for one in endpoints:
        _heading(console, "endpoint")
        _line(console, f"  {escape(one.name)}   {_state(one.status)}   {escape(one.url)}")
        for name, status in one.deployments.items():
            counts = one.replicas.get(name, {})
            told = ", ".join(f"{n} {state.lower()}" for state, n in counts.items()) or "none yet"
            _line(console, f"    {escape(name)}   {_state(status)}   [dim]replicas: {told}[/]")


def _figures(console: Console, figures: Sequence[Figure]) -> None:
    """The metrics that are there, under the headings that their names begin with."""
    sections: dict[str, dict[str, list[Figure]]] = {}
    for one in figures:
        first, _, rest = one.name.partition("_")
        about = next((one.tags[tag] for tag in SUBJECTS if tag in one.tags), "")
        heading = f"{SECTIONS.get(first, first)}{': ' * bool(about)}{about}"
        sections.setdefault(heading, {}).setdefault(rest or first, []).append(one)
    for heading, names in sections.items():
        _heading(console, heading)
        grid = Table.grid(padding=(0, 3))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for name, ones in names.items():
            ones = _known(name, ones)
            if not ones:
                continue
            grid.add_row("  " + _words(name), ", ".join(_figure(name, one) for one in ones))
        console.print(grid)


def _known(name: str, ones: list[Figure]) -> list[Figure]:
    """Without what is over, and what is no figure."""
    if name == "progress":
        ones = sorted(ones, key=lambda one: _place(one.tags.get("stage", "")))[-1:]
    return [one for one in ones if one.value or name not in UNKNOWN_IF_ZERO]


def _place(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1


def _figure(name: str, one: Figure) -> str:
    if name == "progress" and one.tags.get("stage") == "final" and one.value == 1:
        return "done"
    if one.tags.get("quantile") in PERCENTILES:
        return f"{PERCENTILES[one.tags['quantile']]} {_amount(name, one.value)}"
    told = _amount(name, one.value)
    if one.n is not None:
        told += f" in the mean of {one.n:,.0f}"
    tags = (value for tag, value in one.tags.items() if value and tag not in SUBJECTS)
    return escape(" ".join((told, *tags)))


def _words(name: str) -> str:
    """A metric's name without its unit."""
    for unit in UNITS:
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _amount(name: str, value: float) -> str:
    if name in SHARES:
        return f"{value:.1%}"
    if name in FLAGS:
        return "yes" if value else "no"
    if name.endswith("_seconds") and value < 1:
        return f"{1e3 * value:,.3g} ms"
    unit = next((words for suffix, words in UNITS.items() if name.endswith(suffix)), "")
    return (f"{value:,.0f}" if value == int(value) else f"{value:,.4g}") + unit


def _heading(console: Console, words: str) -> None:
    console.print()
    _line(console, f"[dim]{escape(words)}[/]")


def _line(console: Console, markup: str) -> None:
    """One line, cut where the terminal ends; a file or a pipe has no end."""
    text = Text.from_markup(markup)
    if console.is_terminal:
        text.truncate(console.width, overflow="ellipsis")
    console.print(text, soft_wrap=True, highlight=False)


def _state(state: str) -> str:
    style, words = STYLES.get(state, "yellow"), state.lower().replace("_", " ")
    return f"[{style}]{words}[/]"


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _size(megabytes: float | None) -> str:
    if megabytes is None:
        return "–"
    return f"{megabytes:,.0f} MB" if megabytes < 1024 else f"{megabytes / 1024:,.1f} GB"


def _load(cpu: float | None) -> str:
    return "–" if cpu is None else f"{cpu:.2f}"


def _span(seconds: float) -> str:
    """A span as people tell it."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} days"
