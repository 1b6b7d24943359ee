"""What the metrics ports say, as figures."""

from __future__ import annotations

import http.server
import threading

from red_ray.actors.scrape import Figure, figures, living, scrape

ONE = """\
# TYPE ray_red_ray_judge_requests_total counter
ray_red_ray_judge_requests_total{judge="m",result="label",WorkerId="a",Component="core_worker"} 12.0
ray_red_ray_judge_requests_total{judge="m",result="label",WorkerId="b",Component="core_worker"} 3.0
ray_red_ray_judge_requests_total{judge="m",result="timeout",WorkerId="b"} 1.0
# TYPE ray_red_ray_loop_iteration gauge
ray_red_ray_loop_iteration{run="x",WorkerId="a"} 1.0
ray_red_ray_loop_iteration{run="x",WorkerId="b"} 2.0
# TYPE ray_red_ray_serve_batch_texts histogram
ray_red_ray_serve_batch_texts_bucket{le="1.0",run="x"} 1.0
ray_red_ray_serve_batch_texts_bucket{le="+Inf",run="x"} 4.0
ray_red_ray_serve_batch_texts_sum{run="x"} 10.0
ray_red_ray_serve_batch_texts_count{run="x"} 4.0
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{ip="127.0.0.1"} 97.0
"""
TWO = """\
# TYPE ray_red_ray_judge_requests_total counter
ray_red_ray_judge_requests_total{judge="m",result="label",NodeAddress="10.0.0.2"} 5.0
# TYPE ray_serve_deployment_queued_queries gauge
ray_serve_deployment_queued_queries{deployment="a",application="x"} 2.0
ray_serve_deployment_queued_queries{deployment="b",application="x"} 3.0
"""


def found(*texts: str) -> dict[tuple[str, str], Figure]:
    return {(one.name, " ".join(one.tags.values())): one for one in figures(texts)}


def test_counters_are_added_up_over_processes_and_nodes_by_our_own_tags() -> None:
    told = found(ONE, TWO)
    assert told["judge_requests", "m label"].value == 20
    assert told["judge_requests", "m timeout"].value == 1


def test_a_gauge_of_ours_is_the_higher_one_and_serves_are_added_up() -> None:
    told = found(ONE, TWO)
    assert told["loop_iteration", "x"].value == 2
    assert told["serve_deployment_queued_queries", ""].value == 5


def test_a_histogram_is_its_mean() -> None:
    one = found(ONE)["serve_batch_texts", "x"]
    assert (one.value, one.n) == (2.5, 4)


def test_what_is_not_ours_is_left_out() -> None:
    assert not [one for one in figures([ONE, TWO]) if "cpu" in one.name]
    assert figures(["", "# nothing\n"]) == []


def test_a_port_that_does_not_answer_says_nothing() -> None:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(ONE.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = scrape([f"127.0.0.1:{server.server_port}", "127.0.0.1:9"])
        server.shutdown()
    assert told == figures([ONE])


def test_what_has_ended_is_not_shown():
    """Its counters stay with Ray; a gauge is there while somebody tells it."""
    found = [
        Figure("run_progress", {"run": "now", "stage": "loop"}, 0.5, is_gauge=True),
        Figure("loop_refits", {"run": "now"}, 3.0),
        Figure("loop_refits", {"run": "before"}, 3.0),
        Figure("judge_in_flight", {"judge": "m", "run": "now"}, 1.0, is_gauge=True),
        Figure("judge_requests", {"judge": "m", "run": "now"}, 9.0),
        Figure("judge_requests", {"judge": "m", "run": "before"}, 9.0),
        Figure("serve_texts", {"run": "now"}, 2.0),
        Figure("classify_rows", {"output": "x"}, 2.0),
    ]
    kinds = ["CoordinatorActor", "ValidatorPoolActor"]
    now = living(found, kinds)
    assert [one for one in found if one not in now] == [found[2], found[5], found[6]]
    assert living(found, []) == [found[7]]


def test_gauges_are_known_as_such():
    assert {one.name for one in figures([ONE]) if one.is_gauge} < {
        one.name for one in figures([ONE])
    }
    assert any(one.is_gauge for one in figures([ONE]))
