"""The texts at which distributions are compared: the reference's own answers, and the expected calls.

Token ids with the places of the answer's tokens and of those inside calls. The same ids go to every model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge.accuracy.answers import Answer, MadeCall, call_text
from edge.accuracy.cases import EvalCase
from edge.accuracy.values import example_arguments
from edge.chat.parser import CLOSER, OPENER
from edge.engine.model import Vocabulary

TextKind: TypeAlias = Literal["reference", "expected"]


@dataclass(frozen=True, slots=True)
class ForcedText:
    """tokens: prompt and answer. n_prompt: where the answer begins. in_call: of each of its tokens."""

    tokens: tuple[int, ...]
    n_prompt: int
    in_call: tuple[bool, ...]

    @property
    def targets(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.tokens[self.n_prompt :]


def answer_text(kind: TextKind, case: EvalCase, reference: Answer) -> str:
    """The answer whose tokens are forced; empty where there is none."""
    return reference.text() if kind == "reference" else expected_text(case)


def expected_text(case: EvalCase) -> str:
    """The expected calls in their trained form, each with its first accepted values; empty if one has none valid."""
    tools = case.compiled()
    texts = []
    for call in case.expected:
        schema = tools[call.name].tool.parameters
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        required = schema.get("required") if isinstance(schema, Mapping) else None
        arguments = example_arguments(
            call.arguments,
            properties if isinstance(properties, Mapping) else {},
            required if isinstance(required, Sequence) else (),
        )
        if tools[call.name].validate(arguments) is not None:
            return ""
        texts.append(call_text(MadeCall(call.name, arguments)))
    return "\n".join(texts)


def force(
    prompt: Sequence[int], text: str, vocab: Vocabulary, *, ends: bool, n_ctx: int
) -> ForcedText | None:
    """Prompt and answer as one sequence; None where there is no answer or it does not fit n_ctx.

    ends: the token that ends a generation is part of the answer: that the model stops is worth as much as the rest.
    """
    # A call may hold half a surrogate pair, which JSON can write and no text can.
    answer = vocab.tokenize(text.encode("utf-8", "replace").decode())
    in_call = _inside_calls(answer, vocab)
    if ends and (end := vocab.end_of_turn) is not None:
        answer, in_call = [*answer, end], [*in_call, False]
    if not answer or len(prompt) + len(answer) > n_ctx:
        return None
    return ForcedText((*prompt, *answer), len(prompt), tuple(in_call))


def _inside_calls(tokens: Sequence[int], vocab: Vocabulary) -> list[bool]:
    """Which tokens touch the text from `<tool_call>` to the end of its `</tool_call>`."""
    pieces = [vocab.piece(token) for token in tokens]
    text = b"".join(pieces)
    spans, start = [], text.find(OPENER.encode())
    while start >= 0:
        end = text.find(CLOSER.encode(), start)
        end = len(text) if end < 0 else end + len(CLOSER)
        spans.append((start, end))
        start = text.find(OPENER.encode(), end)
    inside, position = [], 0
    for piece in pieces:
        inside.append(any(position < end and position + len(piece) > begin for begin, end in spans))
        position += len(piece)
    return inside
