"""get_webpage and http_request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from edge.tools.executable import Arguments, CallContext, ToolFailure, ToolResult
from edge.tools.fetch import FetchOptions, Request, Response, fetch

_RAW = {"script", "style", "noscript", "template", "svg", "iframe", "object", "title", "textarea"}
_TAG = re.compile(r"<(/?)([a-z][a-z0-9:-]{0,40})")
_MARKS = {"li": "- ", "h1": "# ", "h2": "## ", "h3": "### "}
_BLOCKS = {
    "p", "div", "section", "article", "header", "footer", "main", "nav", "aside", "br", "hr", "tr", "table", "ul", "ol",
    "li", "dl", "dt", "dd", "blockquote", "pre", "form", "h1", "h2", "h3", "h4", "h5", "h6", "figure", "figcaption",
}  # fmt: skip
_MAX_HTML_CHARS = 1_000_000


def get_webpage(options: FetchOptions, arguments: Arguments, context: CallContext) -> ToolResult:
    """Title and text of a page."""
    response = fetch(Request(url=str(arguments["url"])), options, context)
    if response.status >= 400:
        raise ToolFailure(f"HTTP {response.status} {response.reason}")
    text = response.text()
    kind = response.headers.get("content-type", "").lower()
    if "html" in kind or re.match(r"\s*<(!doctype|html)", text[:200], re.IGNORECASE):
        text = page_text(text)
    return _noted(text or "(the page holds no text)", response)


def http_request(options: FetchOptions, arguments: Arguments, context: CallContext) -> ToolResult:
    """Status line, headers and body. A status of 400 or more is an error."""
    headers = arguments.get("headers") or {}
    assert isinstance(headers, dict)
    body = arguments.get("body")
    request = Request(
        url=str(arguments["url"]),
        method=str(arguments.get("method") or "GET"),
        headers={name: str(value) for name, value in headers.items()},
        body=body.encode() if isinstance(body, str) else None,
    )
    response = fetch(request, options, context)
    head = [f"HTTP {response.status} {response.reason}"]
    head += [f"{name}: {value}" for name, value in response.headers.items() if name in _SHOWN_HEADERS]
    result = _noted("\n".join(head) + "\n\n" + response.text(), response)
    return ToolResult(result.text, is_error=response.status >= 400, cut=result.cut)


_SHOWN_HEADERS = {"content-type", "location", "last-modified", "etag", "retry-after", "allow"}


def _noted(text: str, response: Response) -> ToolResult:
    if not response.cut:
        return ToolResult(text)
    return ToolResult(f"{text}\n[cut: the answer goes on after {len(response.body)} bytes]", cut=True)


def page_text(html: str) -> str:
    """The text of an HTML page, a line for each block, without scripts, styles and empty lines.

    Takes time proportional to the length: `html.parser` does not, on pages made to be slow.
    """
    pieces: list[str] = []
    title = ""
    for kind, value in _tokens(html[:_MAX_HTML_CHARS]):
        if kind == "title":
            title = title or " ".join(unescape(value).split())
        elif kind == "text":
            pieces.append(unescape(value).replace("\n", " "))
        elif value in _BLOCKS:
            pieces.append("\n" + (_MARKS.get(value, "") if kind == "open" else ""))
        elif value in ("td", "th"):
            pieces.append(" ")
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    text = "\n".join(line for line in lines if line not in ("", "-", "#", "##", "###"))
    return f"# {title}\n{text}" if title else text


def _tokens(html: str) -> Iterator[tuple[str, str]]:
    """(text, ...), (open, name), (close, name), (title, ...); what is not shown is left out."""
    lower = html.lower()
    at = 0
    while (begin := html.find("<", at)) >= 0:
        yield "text", html[at:begin]
        if html.startswith("<!--", begin):
            at = _behind(html, "-->", begin + 4)
        elif match := _TAG.match(lower, begin):
            slash, name = match.groups()
            at = _behind(html, ">", match.end())
            if name in _RAW and not slash:
                end = _position(lower, f"</{name}", at)
                if name == "title":
                    yield "title", html[at:end]
                at = _behind(html, ">", end)
            else:
                yield ("close" if slash else "open"), name
        elif html.startswith(("<!", "<?"), begin):
            at = _behind(html, ">", begin)
        else:
            yield "text", "<"
            at = begin + 1
    yield "text", html[at:]


def _position(text: str, mark: str, start: int) -> int:
    found = text.find(mark, start)
    return len(text) if found < 0 else found


def _behind(text: str, mark: str, start: int) -> int:
    """Behind the next mark; the end of the text where there is none, so that nothing is searched twice."""
    return min(len(text), _position(text, mark, start) + len(mark))
