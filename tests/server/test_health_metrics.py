"""What the server says of itself."""

from __future__ import annotations

import json
import logging
import time

from prometheus_client.parser import text_string_to_metric_families

from edge.server.app import create_app
from edge.server.logs import set_up_server_log
from edge.server.options import DeviceReading
from tests.server.conftest import running_server
from tests.server.fake_engine import FakeEngine, calling, saying

HI = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_is_ok_with_what_the_device_tells(serve):
    reading = DeviceReading(temperature_c=51.5, power_w=7.25, memory_available_bytes=1 << 30)
    told = serve(saying("ok"), device=lambda: reading).http().get("/health").json()
    assert told["status"] == "ok"
    assert (told["temperature_c"], told["power_w"], told["memory_available_bytes"]) == (51.5, 7.25, 1 << 30)
    assert (told["running"], told["queued"], told["sequences_free"]) == (0, 0, 1)


def test_trouble_with_the_device_is_told_and_answers_go_on(serve):
    reading = DeviceReading(troubles=("the processor is throttled",))
    http = serve(saying("ok"), device=lambda: reading).http()
    answer = http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["troubles"] == ["the processor is throttled"]
    assert http.post("/v1/chat/completions", json=HI).status_code == 200
    assert samples(http.get("/metrics").text)[("smoltools_edge_degraded",)] == 1


def test_a_sensor_that_fails_does_not_take_health_with_it(serve):
    def broken():
        raise OSError("no such sensor: /sys/secret")

    http = serve(saying("ok"), device=broken).http()
    assert http.get("/health").json()["status"] == "ok"
    assert http.get("/metrics").status_code == 200


def test_while_the_model_is_loaded_all_is_503_and_metrics_are_there():
    with running_server(None) as server:
        http = server.http()
        health = http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        assert health.json()["error"]["message"]
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("GET", "/v1/models"),
            ("POST", "/v1/tokenize"),
        ):
            answer = http.request(
                method, path, json=HI | {"content": "x"} if path.endswith("tokenize") else HI
            )
            if path.endswith("tokenize"):
                answer = http.post(path, json={"content": "x"})
            assert answer.status_code == 503, path
            assert answer.json()["error"]["code"] == "loading"
            assert answer.headers["retry-after"]
        assert http.get("/metrics").status_code == 200
        engine = FakeEngine(saying("ok"))
        server.service.install(engine)
        assert http.get("/health").json()["status"] == "ok"
        assert http.post("/v1/chat/completions", json=HI).status_code == 200
        engine.close()


def test_metrics_count_requests_tokens_and_times(serve):
    server = serve(calling(("f", {})), max_queue=7)
    http = server.http()
    for _ in range(3):
        http.post("/v1/chat/completions", json=HI | {"tools": [TOOL]})
    http.post("/v1/chat/completions", json={})
    http.get("/some/strangers/path")
    found = samples(http.get("/metrics").text)
    route = "/v1/chat/completions"
    assert found[("smoltools_edge_http_requests_total", route, "200")] == 3
    assert found[("smoltools_edge_http_requests_total", route, "400")] == 1
    assert found[("smoltools_edge_http_requests_total", "404", "other")] == 1
    assert found[("smoltools_edge_http_request_seconds_count", route)] == 4
    assert found[("smoltools_edge_time_to_first_token_seconds_count",)] == 3
    assert found[("smoltools_edge_time_to_first_token_seconds_sum",)] == 0.75
    assert found[("smoltools_edge_time_per_output_token_seconds_count",)] == 3
    assert (
        round(found[("smoltools_edge_time_per_output_token_seconds_sum",)], 6) == 0.06
    )  # 0.1 s for 5 tokens
    assert found[("smoltools_edge_answers_finished_total",)] == 3
    assert found[("smoltools_edge_prompt_tokens_total",)] == 36
    assert found[("smoltools_edge_cached_tokens_total",)] == 21
    assert found[("smoltools_edge_tool_calls_total",)] == 3
    assert found[("smoltools_edge_queue_limit",)] == 7
    assert found[("llamacpp:prompt_tokens_total",)] == 15
    assert found[("llamacpp:requests_processing",)] == 0
    for name in ("forced_tokens", "grammar_rejections", "tool_calls_withdrawn", "state_cache_hits"):
        assert (f"smoltools_edge_{name}_total",) in found


def test_metrics_have_the_device_where_it_tells(serve):
    http = serve(device=lambda: DeviceReading(temperature_c=60.5, resident_bytes=5)).http()
    found = samples(http.get("/metrics").text)
    assert found[("smoltools_edge_temperature_celsius",)] == 60.5
    assert found[("smoltools_edge_resident_memory_bytes",)] == 5
    assert ("smoltools_edge_power_watts",) not in found


def test_health_and_metrics_tell_how_the_board_is(serve):
    reading = DeviceReading(
        throttled=True, power_mode="25W (mode 1)", memory_pressure_percent=0.5, disk_wear_percent=20,
        disk_written_bytes=7, disk_errors=0,
    )  # fmt: skip
    http = serve(device=lambda: reading).http()
    told = http.get("/health").json()
    assert (told["throttled"], told["power_mode"], told["disk_wear_percent"]) == (True, "25W (mode 1)", 20)
    assert told["memory_pressure_percent"] == 0.5
    found = samples(http.get("/metrics").text)
    assert found[("smoltools_edge_throttled",)] == 1
    assert found[("smoltools_edge_power_mode", "25W (mode 1)")] == 1
    assert found[("smoltools_edge_memory_pressure_percent",)] == 0.5
    assert found[("smoltools_edge_disk_wear_percent",)] == 20
    assert (found[("smoltools_edge_disk_written_bytes",)], found[("smoltools_edge_disk_errors",)]) == (7, 0)


def test_two_servers_in_one_process_count_for_themselves():
    one, two = (create_app(None).state.service.metrics for _ in range(2))
    one.hang_ups.inc()
    assert "client_hang_ups_total 1.0" in one.expose().decode()
    assert "client_hang_ups_total 0.0" in two.expose().decode()


def test_the_log_is_json_a_line_where_that_is_asked_for(serve, capsys):
    log = logging.getLogger("edge.server")
    before = log.handlers[:], log.propagate, log.level
    try:
        set_up_server_log(as_json=True)
        answer = serve(saying("ok")).http().post("/v1/chat/completions", json=HI)
        text, end = "", time.monotonic() + 10
        while not text.endswith("\n") and time.monotonic() < end:  # it is written behind the answer
            time.sleep(0.01)
            text += capsys.readouterr().err
        (line,) = text.splitlines()
    finally:
        log.handlers, log.propagate = before[0], before[1]
        log.setLevel(before[2])
    facts = json.loads(line)
    assert facts["request_id"] == answer.headers["x-request-id"]
    assert (facts["level"], facts["event"], facts["route"]) == ("info", "request", "/v1/chat/completions")
    assert (facts["status"], facts["finish_reason"], facts["cached_tokens"]) == (200, "stop", 7)


def test_tokens_of_a_text_and_back(serve):
    http = serve().http()
    told = http.post("/v1/tokenize", json={"content": "hé"}).json()
    assert told == {"tokens": [104, 195, 169], "count": 3, "n_ctx": 2048}
    assert http.post("/v1/tokenize", json={"content": "", "add_special": True}).json()["tokens"] == [0]
    assert http.post("/v1/detokenize", json={"tokens": told["tokens"]}).json() == {"content": "hé"}
    assert http.post("/v1/detokenize", json={"tokens": []}).json() == {"content": ""}
