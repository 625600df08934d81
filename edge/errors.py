"""The errors that `edge` raises on purpose.

    EdgeError
    ├── ModelError            a file that is not a model we can load
    ├── ContextError          a context that cannot be made (n_ctx, memory)
    │   └── ContextOverflow   the prompt does not fit n_ctx
    ├── ToolsError            what was given as tools is not a list of tools
    │   └── UnsupportedSchema a schema keyword that cannot be enforced
    ├── TemplateError         a chat template that does not render
    ├── RequestError          an option outside its range
    ├── RetrievalError        a tool catalogue, its index or a query file that cannot be used
    ├── OpenWorldError        a profile or a file of requests of the open-world mode that cannot be used
    ├── CatalogueError        a model name that nobody knows, or a file that cannot be fetched
    │   └── HubUnreachable    no network, no answer, or offline by wish
    ├── QueueFull             more requests wait than may
    ├── EngineClosed          the engine takes no more requests
    ├── RequestCancelled      the answer was given up before its end
    │   └── DeadlineExceeded  it took longer than its deadline
    └── EngineError           llama.cpp refused a step that should have worked

The message is one line: what was found, what is allowed, what to do. Facts are attributes.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of every error that a caller may show to a user as it is."""


class ModelError(EdgeError):
    """The file is missing, is not GGUF, is damaged, or holds a model that cannot be run."""


class ContextError(EdgeError):
    """No context of this size can be made for this model on this machine."""


class ContextOverflow(ContextError):
    """The prompt does not fit the context window."""

    def __init__(self, n_prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(
            f"the prompt has {n_prompt_tokens} tokens, which leaves no room in n_ctx={n_ctx}; "
            "shorten it, offer fewer tools, or raise n_ctx"
        )
        self.n_prompt_tokens, self.n_ctx = n_prompt_tokens, n_ctx


class ToolsError(EdgeError):
    """What was given as tools is not a list of OpenAI-style function tools."""


class UnsupportedSchema(ToolsError):
    """A schema keyword that this version cannot enforce; it is never ignored silently."""

    def __init__(self, tool: str, pointer: str, keyword: str, detail: str = "") -> None:
        where = pointer or "/"
        super().__init__(
            f"tool {tool!r}: the schema keyword {keyword!r} at {where} cannot be enforced"
            + (f": {detail}" if detail else "")
        )
        self.tool, self.pointer, self.keyword, self.detail = tool, pointer, keyword, detail


class TemplateError(EdgeError):
    """The chat template is broken or refuses these messages."""


class RequestError(EdgeError):
    """An option of the request is outside its range."""


class RetrievalError(EdgeError):
    """A catalogue of tools, its index, or a file of queries cannot be used."""


class OpenWorldError(EdgeError):
    """A profile or a file of requests of the open-world mode cannot be used."""


class CatalogueError(EdgeError):
    """The model reference is unknown, or its file cannot be had."""


class HubUnreachable(CatalogueError):
    """The hub was not asked or did not answer; what is on this machine can still be used."""


class QueueFull(EdgeError):
    """As many requests wait as may; try again after `retry_after_s`."""

    def __init__(self, n_queued: int, max_queue: int, retry_after_s: int) -> None:
        super().__init__(
            f"{n_queued} requests are waiting, max_queue is {max_queue}; try again in {retry_after_s} s"
        )
        self.n_queued, self.max_queue, self.retry_after_s = n_queued, max_queue, retry_after_s


class EngineClosed(EdgeError):
    """The engine is closing, or closed, and takes no more requests."""


class RequestCancelled(EdgeError):
    """The answer was given up before its end, because the caller or a closing engine asked for it."""


class DeadlineExceeded(RequestCancelled):
    """The answer was given up because it took longer than its deadline."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"the answer was not finished within its deadline of {deadline_s:g} s")
        self.deadline_s = deadline_s


class EngineError(EdgeError):
    """llama.cpp refused a step; the sequence was reset and the engine can go on."""
