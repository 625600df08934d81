from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from convert.child import run_native
from convert.filetypes import parse_types
from edge.accuracy.cases import CaseSet, read_cases
from edge.accuracy.variants import VariantSpec
from edge.engine.gguf_header import read_gguf_header
from tests.tiny_gguf import write_gguf

TEMPLATE = "{% if tools %}{# <tool_call> #}{% endif %}{{ messages[-1].content }}"
OWN_TEMPLATE: dict[str, object] = {"tokenizer.chat_template": TEMPLATE}


def tool(name: str, **properties: object) -> dict:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = tool("get_weather", city={"type": "string"})
CLOCK = tool("get_time", zone={"type": "string"})


def case_row(case_id: str, *expected: tuple[str, dict], scenario: str = "one", **changes: object) -> dict:
    return {
        "id": case_id,
        "scenario": scenario,
        "messages": [{"role": "user", "content": f"question {case_id}"}],
        "tools": [WEATHER, CLOCK],
        "expected": [
            {"name": name, "arguments": {k: [v] for k, v in arguments.items()}}
            for name, arguments in expected
        ],
        **changes,
    }


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def weather(city: str) -> tuple[str, dict]:
    return "get_weather", {"city": city}


def completion(*calls: tuple[str, object], content: str | None = None, finish: str = "stop") -> dict:
    """A chat completion as OpenAI's API answers it."""
    wire = [
        {
            "id": f"c{i}",
            "type": "function",
            "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
        }
        for i, (name, a) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": wire or None}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5},
    }


class FakeServer:
    """An OpenAI endpoint on this machine. answer: from a decoded request to (status, JSON or text)."""

    def __init__(self, answer: Callable[[dict], tuple[int, object]]) -> None:
        self.answer, self.requests, self.headers = answer, [], []
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": "the-model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fake.requests.append(body)
        self.fake.headers.append(dict(self.headers))
        self.reply(*self.fake.answer(body))

    def reply(self, status: int, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict], tuple[int, object]]], FakeServer]]:
    """Starts fake endpoints that end with the test."""
    with ExitStack() as stack:

        def start(answer: Callable[[dict], tuple[int, object]]) -> FakeServer:
            server = FakeServer(answer)
            stack.callback(server.close)
            return server

        yield start


def question_of(request: dict) -> str:
    """The id of the case that a fake server is asked."""
    return request["messages"][-1]["content"].removeprefix("question ")


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random model in float32 and two quantizations of it, and a stranger of the same shape."""
    folder = tmp_path_factory.mktemp("siblings")
    files = {"f32": write_gguf(folder / "tiny-f32.gguf", change=OWN_TEMPLATE)}
    for kind in ("q8_0", "q4_0"):
        (file_type,) = parse_types([kind])
        files[kind] = folder / f"tiny-{kind}.gguf"
        request = {
            "source": str(files["f32"]),
            "target": str(files[kind]),
            "ftype": file_type.ftype,
            "fields": {},
        }
        run_native("quantize", {**request, "n_threads": 1, "max_buf_bytes": 2**28, "imatrix": None})
    files["stranger"] = with_other_weights(files["f32"], folder / "stranger.gguf")
    return files


def with_other_weights(source: Path, target: Path) -> Path:
    """The same file with the rows of the embedding turned round."""
    header = read_gguf_header(source)
    tensor = header.tensors["token_embd.weight"]
    n_bytes = 4 * tensor.shape[0] * tensor.shape[1]
    raw, start = bytearray(source.read_bytes()), header.data_offset + tensor.offset
    rows = np.frombuffer(raw[start : start + n_bytes], dtype="<f4").reshape(tensor.shape[1], tensor.shape[0])
    raw[start : start + n_bytes] = np.ascontiguousarray(rows[::-1]).tobytes()
    target.write_bytes(raw)
    return target


def gguf_spec(path: Path) -> VariantSpec:
    return VariantSpec(name=path.stem, kind="gguf", location=str(path))


def endpoint_spec(server: FakeServer, name: str) -> VariantSpec:
    return VariantSpec(name=name, kind="endpoint", location=server.url)


@pytest.fixture
def few_cases(tmp_path: Path) -> CaseSet:
    rows = [case_row(f"c{i}", *([weather("Rome")] if i % 2 else []), scenario=f"s{i % 2}") for i in range(4)]
    return read_cases(write_rows(tmp_path / "cases.jsonl", rows))


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    before = [path.read_bytes() for path in paths]
    yield
    assert [path.read_bytes() for path in paths] == before
