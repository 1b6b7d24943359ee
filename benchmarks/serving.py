"""The endpoint against FastAPI and uvicorn by hand, side by side, and what it does when overloaded.

Banking77 at 30 per label; the load comes from a second process, on the same processors. Every
server has as many processes with a model as the machine has processors. They take turns: one
round of all, then the next.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cells import ROOT, Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import data_folder, load
from benchmarks.endpoints import ENDPOINTS, REPLICAS, running
from benchmarks.load import measure
from red_ray.cli.console import catch_sigterm

CLIENTS = (1, 8, 32, 128)
FIGURES = ("texts/s", "p50 ms", "p99 ms", "errors")
ROUNDS = 3
SECONDS = float(os.environ.get("RED_RAY_BENCH_S", "10"))
"""Of each point; fewer for a trial, whose results are kept apart."""
WARM_S = 2.0
OVERLOAD, OVERLOAD_S, TIMEOUT_S = 2.0, 3 * SECONDS, 10.0
FULL = 128
"""Clients at which capacity is measured: two full batches of texts."""
BACK_S = 10.0
"""After the overload, until full capacity must be back."""
N_ALONE = 300
SEED = 42

OURS, BARE, NO_RAY = "ours", "bare", "bare, our app"
LEAST_RATIO, MOST_EXTRA_MS, LEAST_BACK = 0.8, 8.0, 0.95
SOURCES = (
    *("core", "encoding", "experts", "model.py", "actors/environment.py", "cli/serve.py"),
    *(f"../serve/{name}.py" for name in ("app", "batcher", "deployments", "desk", "gate")),
    *(f"../serve/{name}.py" for name in ("judging", "loaded", "local", "rates", "scoring")),
    *(f"../serve/{name}.py" for name in ("service", "settings")),
    *(f"../benchmarks/{name}.py" for name in ("bare", "endpoints", "load")),
)


def run(cell: Cell) -> Result:
    """One cell, with a server of its own if it needs one."""
    return RUNS[cell["what"]](cell)


def rate(cell: Cell) -> Result:
    """One server under closed loops, from few clients to many."""
    result: Result = {}
    with tempfile.TemporaryDirectory() as folder:
        texts = texts_file(Path(folder))
        with running(cell["server"], trained_run(), Path(folder)) as url:
            for clients in CLIENTS:
                found = measure(url, texts, clients=clients, warm=WARM_S, seconds=SECONDS)
                good = found["statuses"].get("200", 0)
                result |= {f"{clients} {name}": found[name] for name in FIGURES[:-1]}
                result[f"{clients} errors"] = found["n"] - good
    return result


def alone(_: Cell) -> Result:
    """What the encoder and the model take for one text, in a process where nothing else runs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_alone, trained_run(), test_texts()).result()


def _alone(run: Path, texts: Sequence[str]) -> Result:
    import red_ray
    from red_ray.core.blas import use_one_blas_thread
    from red_ray.encoding import SentenceEncoder

    use_one_blas_thread()
    model = red_ray.load(run)
    with SentenceEncoder.load(model.encoder_config, n_threads=1) as encoder:
        model = replace(model, encoder=encoder)
        model.predict(texts[:256])  # the first batches of each length are slower
        return {
            "encoder p50 ms": _p50_ms(lambda text: encoder.encode([text]), texts[:N_ALONE]),
            "model p50 ms": _p50_ms(lambda text: model.predict([text]), texts[:N_ALONE]),
        }


def _p50_ms(work: Callable[[str], object], texts: Sequence[str]) -> float:
    took = []
    for text in texts:
        start = time.perf_counter()
        work(text)
        took.append(1e3 * (time.perf_counter() - start))
    return float(np.median(took))


def overload(_: Cell) -> Result:
    """Our endpoint at twice its capacity, and what is left of that capacity afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        texts = texts_file(Path(folder))
        with running(OURS, trained_run(), Path(folder)) as url:
            before = measure(url, texts, clients=FULL, warm=WARM_S, seconds=SECONDS)
            asked = OVERLOAD * before["texts/s"]
            flood = measure(url, texts, rate=asked, seconds=OVERLOAD_S, timeout=TIMEOUT_S)
            after = measure(url, texts, clients=FULL, warm=BACK_S, seconds=SECONDS)
    return {
        "capacity": before["texts/s"],
        "asked /s": asked,
        **{name: flood[name] for name in ("n", "texts/s", "statuses", "p50 ms", "p99 ms")},
        **{name: flood[name] for name in ("503 without Retry-After", "timeout", "transport")},
        **{name: flood[name] for name in ("not sent", "most open", "most late ms")},
        "load cpu share": flood["load cpu share"],
        "capacity after": after["texts/s"],
        "back": after["texts/s"] / before["texts/s"],
        "series": flood["series"],
        "series after": after["series"],
    }


RUNS: dict[str, Callable[[Cell], Result]] = {"alone": alone, "rate": rate, "overload": overload}


def trained_run() -> Path:
    """The run that is served; trained once, with the command that users have."""
    folder = ROOT / "build" / "serving" / "banking77-30"
    if not (folder / "bundle").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        train = data_folder() / "banking77" / "train.csv"
        command = [sys.executable, "-m", "red_ray.cli", "train", "--train", str(train)]
        command += ["--samples-per-class", "30", "--seed", str(SEED), "--goal", "catch_errors=0.9"]
        subprocess.run([*command, "--overwrite", "--out", str(folder)], cwd=ROOT, check=True)
    return folder


def test_texts() -> tuple[str, ...]:
    """The official test texts."""
    return tuple(load("banking77", 30, SEED)[2].rows.texts)


def texts_file(folder: Path) -> Path:
    """The test texts, a line each."""
    path = folder / "texts"
    path.write_text("\n".join(" ".join(text.split()) for text in test_texts()), "utf-8")
    return path


Done = Sequence[tuple[Cell, Result]]


def table(done: Done) -> str:
    """Mean over rounds and 95 % interval of it; then what was promised, and whether it holds."""
    names = [name for name in ENDPOINTS if _rounds(done, "rate", name)]
    told = [*_ratios(done), *_one_client(done), *_overload(done)]
    return "\n".join([*_points(done, names), "", *told] if names else told)


def _points(done: Done, names: Sequence[str]) -> list[str]:
    lines = [f"| clients | of {REPLICAS} processes | " + " | ".join(names) + " |"]
    lines.append("|" + "---|" * (len(names) + 2))
    for clients in CLIENTS:
        for figure in FIGURES:
            key = f"{clients} {figure}"
            cells = [_cell([*_rounds(done, "rate", name).values()], key) for name in names]
            lines.append(f"| {clients} | {figure} | " + " | ".join(cells) + " |")
    return lines


def _rounds(done: Done, what: str, server: str | None = None) -> dict[int, Result]:
    return {
        cell["round"]: result
        for cell, result in done
        if cell["what"] == what and cell.get("server") == server
    }


def _cell(found: Sequence[Result], key: str) -> str:
    values = [result[key] for result in found if result[key] is not None]
    if key.endswith("errors"):
        return f"{sum(values)}"
    return mean_interval(values, 1.0, 1) if values else "–"


def _ratios(done: Done) -> list[str]:
    """Texts/s as a share of those of the servers without Ray of the same round."""
    lines = []
    for name in (name for name in ENDPOINTS if name not in (BARE, NO_RAY)):
        bare, no_ray = (_shares(done, name, than) for than in (BARE, NO_RAY))
        if bare and no_ray:
            wanted = f" (target {LEAST_RATIO}: {_met(np.mean(bare) >= LEAST_RATIO)})"
            lines.append(
                f"32 clients, {name}: {mean_interval(bare, 1.0)} of the texts/s of bare FastAPI"
                f"{wanted if name == OURS else ''}, {mean_interval(no_ray, 1.0)} of those of our "
                "own application without Ray.  "
            )
    return lines


def _shares(done: Done, name: str, than: str, key: str = "32 texts/s") -> list[float]:
    ours, theirs = _rounds(done, "rate", name), _rounds(done, "rate", than)
    return [
        ours[number][key] / theirs[number][key] for number in sorted(ours.keys() & theirs.keys())
    ]


def _one_client(done: Done) -> list[str]:
    """What a call alone takes beside the encoder's own time, round by round."""
    ours, quiet = _rounds(done, "rate", OURS), _rounds(done, "alone")
    both = sorted(ours.keys() & quiet.keys())
    if not both:
        return []
    extra_ms = [ours[n]["1 p50 ms"] - quiet[n]["encoder p50 ms"] for n in both]
    encoder = mean_interval([quiet[n]["encoder p50 ms"] for n in both], 1.0)
    model = mean_interval([quiet[n]["model p50 ms"] for n in both], 1.0)
    return [
        f"One text: {encoder} ms in the encoder, {model} ms in the model; a call by one client "
        f"takes {mean_interval(extra_ms, 1.0)} ms more than the encoder (target at most "
        f"{MOST_EXTRA_MS:g}: {_met(np.mean(extra_ms) <= MOST_EXTRA_MS)}).  "
    ]


def _overload(done: Done) -> list[str]:
    """Each overload that was run, in a line."""
    lines = []
    for result in _rounds(done, "overload").values():
        statuses = ", ".join(f"{n:,} × {status}" for status, n in result["statuses"].items())
        p99_ms = result["p99 ms"]
        kept = (
            not set(result["statuses"]) - {"200", "503"}
            and result["503 without Retry-After"] == 0
            and p99_ms is not None
            and p99_ms < 1e3 * TIMEOUT_S
            and result["back"] >= LEAST_BACK
        )
        p99 = "–" if p99_ms is None else f"{p99_ms:,.0f}"
        lines.append(
            f"{result['asked /s']:,.0f} texts/s for {OVERLOAD_S:.0f} s, twice the capacity of "
            f"{result['capacity']:,.0f}: {statuses}; {result['503 without Retry-After']} of the "
            f"503s without Retry-After; {result['texts/s']:,.0f} texts/s answered, p99 {p99} ms; "
            f"{result['not sent']:,} calls that the load generator could not send; "
            f"{result['back']:.0%} of the capacity {BACK_S:.0f} s later ({_met(kept)}).  "
        )
    return lines


def _met(holds: object) -> str:
    return "met" if holds else "MISSED"


def _cells() -> list[Cell]:
    cells: list[Cell] = []
    for number in range(ROUNDS):
        turn = [*ENDPOINTS][number % len(ENDPOINTS) :] + [*ENDPOINTS][: number % len(ENDPOINTS)]
        cells.append({"what": "alone", "round": number, "seconds": SECONDS})
        cells += [
            {"what": "rate", "server": name, "round": number, "seconds": SECONDS} for name in turn
        ]
        cells.append({"what": "overload", "round": number, "seconds": SECONDS})
    return cells


if __name__ == "__main__":
    catch_sigterm()  # else a server would outlive us
    main(Benchmark("serving", _cells(), run, table, SOURCES))
