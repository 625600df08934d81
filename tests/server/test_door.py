"""Keys, hosts, web pages, TLS: who may come in."""

from __future__ import annotations

import hmac
from contextlib import closing

import openai
import pytest

from edge.server import door
from edge.server.door import local_hosts
from edge.server.options import ServerError, ServerOptions
from tests.server.conftest import running_server
from tests.server.fake_engine import FakeEngine, saying

HI = {"messages": [{"role": "user", "content": "hi"}]}
KEYED = ServerOptions(api_keys=("sk-one", "sk-tŵo"))


def test_without_the_key_nothing_is_answered_but_health(serve):
    http = serve(saying("ok"), options=KEYED).http()
    for method, path in [
        ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/metrics"),
        ("GET", "/openapi.json"), ("POST", "/v1/tokenize"), ("GET", "/nothing"), ("GET", "//health"),
    ]:  # fmt: skip
        answer = http.request(method, path, json=HI if method == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert http.get("/health").status_code == 200
    assert http.get("/v1/health").status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sk-on", "Bearer sk-one2", "Basic sk-one", "sk-one"])
def test_a_wrong_key_is_a_wrong_key(serve, header):
    http = serve(saying("ok"), options=KEYED).http()
    assert http.get("/v1/models", headers={"authorization": header}).status_code == 401


def test_any_of_the_keys_opens(serve):
    server = serve(saying("ok"), options=KEYED)
    assert server.openai(api_key="sk-one").models.list().data
    raw = {"authorization": "bearer sk-tŵo".encode()}
    assert server.http().get("/v1/models", headers=raw).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        server.openai(api_key="sk-three").models.list()


def test_all_keys_are_compared_in_constant_time(serve, monkeypatch):
    compared = []

    def noted(given, known):
        compared.append((len(given), len(known)))
        return hmac.compare_digest(given, known)

    server = serve(saying("ok"), options=KEYED)
    monkeypatch.setattr(door, "hmac", type("Hmac", (), {"compare_digest": staticmethod(noted)}))
    for key in ("sk-one", "x", "y" * 1000):
        server.http().get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert compared == [(32, 32)] * 6


def test_a_key_is_asked_for_before_the_body_is_read(serve):
    server = serve(saying("ok"), options=KEYED)
    answer = server.http().post("/v1/chat/completions", content=b"x" * 3_000_000)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("127.0.0.1:8080", 200), ("[::1]:80", 200), ("LOCALHOST", 200), ("box.local", 200),
     ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403)],
)  # fmt: skip
def test_a_name_that_was_pointed_at_this_machine_is_not_answered(serve, host, status):
    options = ServerOptions(allowed_hosts=local_hosts("127.0.0.1", ["box.local"]))
    assert (
        serve(saying("ok"), options=options).http().get("/health", headers={"host": host}).status_code
        == status
    )


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://[", 403), ("http://localhost:3000", 200),
     ("http://127.0.0.1:5173", 200)],
)  # fmt: skip
def test_pages_of_other_machines_cannot_make_a_browser_ask(serve, origin, status):
    http = serve(saying("ok")).http()
    assert http.post("/v1/chat/completions", json=HI, headers={"origin": origin}).status_code == status


def test_cors_is_off_unless_an_origin_is_named(serve):
    preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
    closed = serve(saying("ok")).http()
    answer = closed.options("/v1/chat/completions", headers=preflight)
    assert answer.status_code >= 400
    assert "access-control-allow-origin" not in answer.headers
    opened = serve(saying("ok"), options=ServerOptions(cors_origins=("https://app.example",))).http()
    answer = opened.options("/v1/chat/completions", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    answer = opened.post("/v1/chat/completions", json=HI, headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    other = opened.post("/v1/chat/completions", json=HI, headers={"origin": "https://evil.example"})
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("keys", [("",), (" x",), ("a\nb",), ("a\x00",)])
def test_a_key_that_no_client_could_send_is_refused(keys):
    with pytest.raises(ServerError, match="API key"):
        ServerOptions(api_keys=keys)


def test_no_key_and_no_text_of_a_conversation_is_logged(caplog):
    caplog.set_level("DEBUG")
    secret = {"messages": [{"role": "user", "content": "the-question"}]}
    with closing(FakeEngine(saying("the-answer"))) as engine, running_server(engine, KEYED) as server:
        http = server.http()
        http.post(
            "/v1/chat/completions?key=the-query", json=secret, headers={"authorization": "Bearer sk-one"}
        )
        http.get("/v1/models", headers={"authorization": "Bearer sk-wrong"})
        http.get("/the-path")
    # Read when the server has ended: a request is logged behind its answer, which the client may have before.
    logged = " ".join(
        str(record.__dict__) for record in caplog.records if record.name.startswith(("edge", "uvicorn"))
    )
    assert logged.count("'event': 'request'") == 3
    for text in ("sk-one", "sk-wrong", "the-question", "the-answer", "the-query", "the-path", "/secret"):
        assert text not in logged


def test_request_ids_are_the_clients_own_where_they_are_harmless(serve):
    http = serve(saying("ok")).http()
    assert http.get("/health", headers={"x-request-id": "abc-1.2:3"}).headers["x-request-id"] == "abc-1.2:3"
    for bad in ("a b", "x" * 200, "", 'a"b', "ä".encode()):
        given = http.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        assert given.startswith("req_")
