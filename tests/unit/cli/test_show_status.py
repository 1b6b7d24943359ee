"""The state of a cluster on a terminal of 80 columns, and in a file."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from red_ray.actors.head import Head
from red_ray.actors.scrape import Figure
from red_ray.actors.sight import Actor, Endpoint, Job, Node, Sight
from red_ray.cli.show_status import show_status

NOW_S = 1_000_000.0
NODE = Node("127.0.0.1", "127.0.0.1", "ALIVE", is_head=True, cpus=2, gpus=0, memory_gb=13.1)
SAID = "Asking the judge: iteration 1: 16 asked, 14 labels, 2 none; 86 training rows, 2 refitted"
LONG = "red-ray train --train /home/somebody/data/train.csv --pool /home/somebody/data/pool.csv"
RUNNING = Job("raysubmit_a", True, "RUNNING", LONG, NOW_S - 130, None, SAID, None)
LABELS = "expert-00: " + "card_arrival, " * 6
EXPERT = Actor(LABELS, "ExpertActor", "ALIVE", 7, "127.0.0.1", 0, 95.2, 0.5)
ROUTER = replace(EXPERT, name="router", kind="RouterActor", memory_mb=1512.0, cpu=1.98)
EMPTY = Sight("http://127.0.0.1:8265", "2.60.0", (NODE,), (), (), (), ())


def shown(sight: Sight, head: Head | None = None, *, width: int = 80, terminal: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    show_status(console, sight, head, now_s=NOW_S)
    return out.getvalue()


def job(number: int, status: str, said: str = "") -> Job:
    start_s = NOW_S - 1000 - number
    return Job(f"raysubmit_{number}", True, status, "red-ray train", start_s, start_s + 90, said, 0)


def test_an_idle_head() -> None:
    head = Head(42, NOW_S - 600, "m", "a", EMPTY.dashboard, "/t", "/f", "/l", 2)
    told = shown(EMPTY, head)
    assert "http://127.0.0.1:8265   Ray 2.60.0, up for 10 min, pid 42" in told
    assert "head 127.0.0.1: 2 CPUs, 13.1 GB" in told
    assert "none so far" in told
    assert "actors" not in told


def test_no_line_is_longer_than_a_terminal_and_figures_are_whole() -> None:
    told = shown(replace(EMPTY, jobs=(RUNNING,), actors=(EXPERT, ROUTER)))
    lines = told.splitlines()
    assert max(map(len, lines)) <= 80
    (expert,) = [line for line in lines if "expert-00: card_arrival" in line]
    assert "…" in expert
    assert expert.split()[-4:] == ["alive", "95", "MB", "0.50"]
    (router,) = [line for line in lines if "router" in line]
    assert router.split()[-4:] == ["alive", "1.5", "GB", "1.98"]
    assert "Asking the judge: iteration 1" in told


def test_a_file_gets_every_word() -> None:
    told = shown(replace(EMPTY, jobs=(RUNNING,)), width=132, terminal=False)
    assert f"    {LONG}\n    {SAID}\n" in told
    assert "raysubmit_a   running   for 2 min" in told


def test_jobs_that_ended_are_few_and_a_failed_one_says_why() -> None:
    ended = [job(n, "SUCCEEDED") for n in range(5)]
    failed = job(9, "FAILED", "red-ray: --out 'run' lies [there]")
    told = shown(replace(EMPTY, jobs=(RUNNING, failed, *ended)))
    assert "raysubmit_a   running" in told
    assert "red-ray: --out 'run' lies [there]" in told
    assert "raysubmit_1   succeeded   after 90 s, 15 min ago" in told
    assert "raysubmit_2" not in told
    assert "and 3 that ended before" in told


def test_many_actors_of_a_kind_share_a_row_but_for_those_in_trouble() -> None:
    well = [replace(EXPERT, name=f"expert-{n:02}", memory_mb=100.0) for n in range(20)]
    sick = replace(
        EXPERT, name="expert-77", state="RESTARTING", restarts=2, memory_mb=None, cpu=None
    )
    told = shown(replace(EMPTY, actors=(*well, sick)))
    assert "20 × ExpertActor" in told
    assert "2.0 GB  10.00" in told
    assert "expert-03" not in told
    (line,) = [line for line in told.splitlines() if "expert-77" in line]
    assert "restarting, restarted 2×" in line


def test_nodes_are_told_apart_where_there_are_several() -> None:
    worker = replace(NODE, name="10.0.0.2", is_head=False, gpus=1, state="DEAD")
    told = shown(replace(EMPTY, nodes=(NODE, worker), actors=(replace(EXPERT, node="10.0.0.2"),)))
    assert "worker 10.0.0.2: 2 CPUs, 1 GPU, 13.1 GB, dead" in told
    assert told.splitlines()[-1].endswith("10.0.0.2")


def test_an_endpoint_with_its_replicas() -> None:
    one = Endpoint(
        "red_ray",
        "RUNNING",
        "/",
        "http://h:8000/",
        {"Classifier": "HEALTHY"},
        {"Classifier": {"RUNNING": 2}},
    )
    told = shown(replace(EMPTY, endpoints=(one,)))
    assert "red_ray   running   http://h:8000/" in told
    assert "Classifier   healthy   replicas: 2 running" in told


def test_metrics_stand_under_what_they_are_about() -> None:
    figures = (
        Figure("judge_requests", {"judge": "openai:m", "result": "label"}, 12.0),
        Figure("judge_requests", {"judge": "openai:m", "result": "timeout"}, 1.0),
        Figure("judge_cost_usd", {"judge": "openai:m"}, 0.1234),
        Figure("judge_paused", {"judge": "openai:m"}, 1.0),
        Figure("loop_iteration", {"run": "tickets"}, 2.0),
        Figure("loop_accuracy", {"run": "tickets"}, 0.819),
        Figure("serve_batch_texts", {}, 2.5, 4.0),
        Figure("novelty_of_tomorrow", {}, 1234.0),
    )
    lines = [" ".join(line.split()) for line in shown(replace(EMPTY, figures=figures)).splitlines()]
    at = lines.index("the judge's pool: openai:m")
    assert lines[at + 1 : at + 4] == [
        "requests 12 label, 1 timeout",
        "cost 0.1234 USD",
        "paused yes",
    ]
    at = lines.index("the loop: tickets")
    assert lines[at + 1 : at + 3] == ["iteration 2", "accuracy 81.9%"]
    assert lines[lines.index("the endpoint") + 1] == "batch texts 2.5 in the mean of 4"
    assert lines[lines.index("novelty") + 1] == "of tomorrow 1,234"


def test_figures_read_as_people_say_them() -> None:
    figures = (
        *(
            Figure("run_progress", {"run": "a", "stage": stage}, 1.0)
            for stage in ("encode", "final", "judge")
        ),
        *(Figure("run_progress", {"run": "b", "stage": s}, 0.25) for s in ("loop", "calibrate")),
        Figure("judge_latency_seconds", {"judge": "m", "quantile": "0.5"}, 0.0123),
        Figure("judge_latency_seconds", {"judge": "m", "quantile": "0.95"}, 1.5),
        Figure("loop_log_likelihood", {"run": "a"}, 0.0),
        Figure("loop_step_seconds", {"run": "a", "step": "fit"}, 1e-5),
    )
    lines = [" ".join(line.split()) for line in shown(replace(EMPTY, figures=figures)).splitlines()]
    assert lines[lines.index("the run: a") + 1] == "progress done"
    assert lines[lines.index("the run: b") + 1] == "progress 25.0% loop"
    assert lines[lines.index("the judge's pool: m") + 1] == "latency p50 12.3 ms, p95 1.5 s"
    assert lines[lines.index("the loop: a") + 1] == "step 0.01 ms fit"
    assert not any("likelihood" in line for line in lines)


def test_a_command_that_is_gone_has_ended() -> None:
    gone = Job("05000000", False, "ENDED", "", NOW_S - 100, NOW_S - 10, "", None)
    assert "05000000   ended   after 90 s" in shown(replace(EMPTY, jobs=(gone,)))
