"""HTTP for tools: inner addresses, redirects, names that change their answer, bombs, endless and slow answers."""

from __future__ import annotations

import gzip
import ipaddress
import threading
import time
import tracemalloc
import zlib

import pytest

from edge.tools.builtin.web import page_text
from edge.tools.executable import CallContext, ToolFailure
from edge.tools.fetch import FetchOptions, Request, fetch, is_public
from tests.tools.conftest import reply


def get(url, *, timeout_s=5.0, context_s=20.0, method="GET", body=None, headers=None, **options):
    request = Request(url=url, method=method, body=body, headers=headers or {})
    return fetch(request, FetchOptions(timeout_s=timeout_s, **options), CallContext(context_s))


INNER = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "192.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::",
    "2001:0:7f00:1::", "2001:db8::1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture
def hit(web):
    """A server that must not be reached: its port, and what reached it."""
    reached = []

    def answer(handler):
        reached.append(handler.path)
        reply(handler, b"the inner secret")

    port = web(answer)
    yield port, reached
    assert reached == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "127.1", "0x7f.1", "2130706433", "017700000001", "[::ffff:127.0.0.1]",
        "0.0.0.0", "0", "127.0.0.1.", "localhost.", "[::1]", "①②⑦.0.0.1",
    ],
)  # fmt: skip
def test_this_machine_is_not_reached_however_it_is_written(hit, host):
    with pytest.raises(ToolFailure):
        get(f"http://{host}:{hit[0]}/")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org", "gopher://127.0.0.1:25/x", "http://", "http:///x", "x", "",
        "http://user:pw@example.org/", "http://[::1", "http://example.org:99999/", "http://example.org:0/",
        "http://exa mple.org/", "http://example.org\r\nHost: x/", "//127.0.0.1", "http://\0/", "javascript:1",
        "http://" + "a" * 300 + "/", "http://ex\u2025ample..org/",
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(url):
    def resolve(host, port):
        raise OSError("no names in this test")

    with pytest.raises(ToolFailure):
        get(url, resolve=resolve)


def test_a_redirect_to_the_inside_is_refused(web, hit):
    port = web(lambda handler: reply(handler, status=302, location=f"http://127.0.0.2:{hit[0]}/secret"))
    with pytest.raises(ToolFailure, match="not public"):
        get(f"http://127.0.0.1:{port}/", allow_private=[f"127.0.0.1:{port}"])


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://u:p@127.0.0.1/", "gopher://x/"])
def test_a_redirect_to_another_scheme_is_refused(web, location):
    port = web(lambda handler: reply(handler, status=301, location=location))
    with pytest.raises(ToolFailure):
        get(f"http://127.0.0.1:{port}/", allow_private=["127.0.0.1"])


def test_redirects_end(web):
    port = web(lambda handler: reply(handler, status=302, location=handler.path + "x"))
    with pytest.raises(ToolFailure, match="more than 5 redirects"):
        get(f"http://127.0.0.1:{port}/", allow_private=["127.0.0.1"])


def test_a_name_is_resolved_once_and_the_checked_address_is_used(web):
    """DNS rebinding: the first answer is fine, a second one would be the inside."""
    port = web(lambda handler: reply(handler, f"host {handler.headers['Host']}".encode()))
    asked = []

    def resolve(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    response = get(f"http://rebind.example:{port}/", resolve=resolve, allow_private=["127.0.0.0/8"])
    assert response.text() == f"host rebind.example:{port}"
    assert asked == ["rebind.example"]


def test_a_name_that_answers_with_the_inside_is_refused(hit):
    with pytest.raises(ToolFailure, match="not public"):
        get(f"http://evil.example:{hit[0]}/", resolve=lambda host, port: ["127.0.0.1", "::1"])


def test_of_several_addresses_only_an_allowed_one_is_used(hit):
    with pytest.raises(ToolFailure) as caught:  # 192.0.2.1 would be first; neither is public
        get(f"http://evil.example:{hit[0]}/", resolve=lambda host, port: ["192.0.2.1", "127.0.0.1"])
    assert "not public" in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_bomb_is_cut(web, encoding):
    bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(b"\0" * 30_000_000)
    assert len(bomb) < 100_000
    port = web(lambda handler: reply(handler, bomb, content_encoding=encoding))
    tracemalloc.start()
    response = get(f"http://127.0.0.1:{port}/", allow_private=["127.0.0.1"], max_bytes=100_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 5_000_000  # it is not unpacked whole and cut afterwards
    assert len(response.body) == 100_000
    assert response.cut


def test_an_unknown_packing_is_refused(web):
    port = web(lambda handler: reply(handler, b"x", content_encoding="br"))
    with pytest.raises(ToolFailure, match="packed with"):
        get(f"http://127.0.0.1:{port}/", allow_private=["127.0.0.1"])


def test_an_endless_body_is_cut(web):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    response = get(f"http://127.0.0.1:{web(answer)}/", allow_private=["127.0.0.1"], max_bytes=1_000_000)
    assert (len(response.body), response.cut) == (1_000_000, True)


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_is_given_up_in_time(web, part):
    def answer(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if part == "body" else b"X: "))
        try:
            for _ in range(200):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    started = time.monotonic()
    with pytest.raises(ToolFailure, match="within"):
        get(f"http://127.0.0.1:{web(answer)}/", timeout_s=0.4, allow_private=["127.0.0.1"])
    assert time.monotonic() - started < 2


def test_a_cancelled_call_ends_the_request(web):
    release = threading.Event()
    port = web(lambda handler: release.wait(10))
    context = CallContext(20)
    threading.Timer(0.2, context.cancel).start()
    started = time.monotonic()
    with pytest.raises(ToolFailure):
        fetch(Request(url=f"http://127.0.0.1:{port}/"), FetchOptions(allow_private=["127.0.0.1"]), context)
    release.set()
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"X": "a\r\nY: b"},
        {"A\r\nB": "c"},
        {"Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
    ],
)
def test_headers_that_change_the_request_are_refused(hit, headers):
    with pytest.raises(ToolFailure):
        get(f"http://127.0.0.1:{hit[0]}/", headers=headers, allow_private=["127.0.0.1"])


def test_secrets_do_not_follow_a_redirect_to_another_host(web):
    seen = {}

    def second(handler):
        seen.update(handler.headers.items())
        reply(handler, b"ok")

    other = web(second)
    port = web(lambda handler: reply(handler, status=302, location=f"http://127.0.0.1:{other}/"))
    get(
        f"http://127.0.0.1:{port}/",
        headers={"Authorization": "s3cret", "X-A": "1"},
        allow_private=["127.0.0.1"],
    )
    assert "Authorization" not in seen
    assert seen["X-A"] == "1"


def test_a_body_does_not_follow_a_redirect_to_another_host(web, hit):
    port = web(lambda handler: reply(handler, status=307, location=f"http://127.0.0.1:{hit[0]}/"))
    with pytest.raises(ToolFailure, match="with a body"):
        get(f"http://127.0.0.1:{port}/", method="POST", body=b"x", allow_private=["127.0.0.1"])


@pytest.mark.parametrize(
    "raw", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"]
)
def test_what_is_no_http_answer_is_an_error(web, raw):
    port = web(lambda handler: handler.wfile.write(raw))
    with pytest.raises(ToolFailure):
        get(f"http://127.0.0.1:{port}/", allow_private=["127.0.0.1"])


LOCAL = {"http": {"allow_private": ["127.0.0.1"]}}


def test_http_request_gives_status_headers_and_text(web, builtin):
    def answer(handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        reply(
            handler, f"{handler.command} {handler.path} {body.decode()}".encode(), content_type="text/plain"
        )

    url = f"http://127.0.0.1:{web(answer)}/a b?q=ü"
    result = builtin("http_request", LOCAL, url=url, method="POST", body="hi")
    assert result.text == "HTTP 200 OK\ncontent-type: text/plain\n\nPOST /a%20b?q=%C3%BC hi"


def test_http_request_tells_of_an_error_status(web, builtin):
    port = web(lambda handler: reply(handler, b"gone", status=404))
    result = builtin("http_request", LOCAL, url=f"http://127.0.0.1:{port}/")
    assert result.is_error
    assert result.text.startswith("HTTP 404 Not Found")


def test_binary_answers_are_not_text(web, builtin):
    port = web(lambda handler: reply(handler, b"\x89PNG\0\0", content_type="image/png"))
    assert (
        '"image/png", 6 bytes, and not text'
        in builtin("get_webpage", LOCAL, url=f"http://127.0.0.1:{port}/").text
    )


def test_get_webpage_gives_the_text_of_a_page(web, builtin):
    page = (
        b"<!doctype html><html><head><title>A  page</title><style>x{}</style></head><body><h1>Head</h1>"
        b"<script>alert(1)</script><p>One <b>two</b>&amp; three</p><ul><li>a<li>b</ul></body></html>"
    )
    port = web(lambda handler: reply(handler, page, content_type="text/html; charset=utf-8"))
    result = builtin("get_webpage", LOCAL, url=f"http://127.0.0.1:{port}/")
    assert result.text == "# A page\n# Head\nOne two& three\n- a\n- b"


@pytest.mark.parametrize(
    "html", ["<" * 300_000, "<a" * 200_000, "<!--" * 200_000, "<div>" * 200_000, "&" * 300_000]
)
def test_hostile_pages_do_not_take_long(html):
    started = time.process_time()
    page_text(html)
    assert time.process_time() - started < 5
