"""A loaded GGUF model: weights, vocabulary, metadata. No context, no state of a conversation."""

from __future__ import annotations

import ctypes
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edge.engine.intake import examine_chat
from edge.engine.native import llama, problems_logged
from edge.engine.trial import check_in_child
from edge.errors import ModelError, RequestError

_LONG_CHARS, _NAMED_PER_PIECE = 1 << 16, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How the weights are held.

    use_extra_bufts: copy weights into the CPU's fastest layout. Costs up to 60 % more resident memory on a 4B
        Q4_K_M for about 8 % faster decoding, hence off on a small device.
    """

    n_gpu_layers: int = 0
    use_mmap: bool = True
    use_extra_bufts: bool = True


class Model:
    """Owns a `llama_model`. Close it, or use it in a `with` block; contexts made from it must be closed first."""

    def __init__(
        self, path: str | Path, options: ModelOptions | None = None, *, trusted: bool = False
    ) -> None:
        """trusted: the file is known not to make llama.cpp abort; leaves out the trial in a child process."""
        self.path = Path(path)
        self.options = options or ModelOptions()
        self.intake = examine_chat(self.path)
        self.header = self.intake.header
        if not trusted:
            check_in_child(self.path)
        self.pointer = load_weights(self.path, self.options)
        self.vocab = Vocabulary(llama().llama_model_get_vocab(self.pointer))
        self.n_ctx_train = int(llama().llama_model_n_ctx_train(self.pointer))
        self.is_hybrid = bool(llama().llama_model_is_hybrid(self.pointer))

    @property
    def chat_template(self) -> str | None:
        """The Jinja text that the file carries, if any."""
        value = self.header.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) and value.strip() else None

    def close(self) -> None:
        """Frees the weights. Safe to call twice."""
        if self.pointer is not None:
            llama().llama_model_free(self.pointer)
            self.pointer = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_weights(path: Path, options: ModelOptions) -> Any:  # noqa: ANN401 - ctypes pointer
    """The `llama_model` of a file; its owner frees it. Raises ModelError."""
    lib = llama()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = options.n_gpu_layers
    params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if options.use_mmap else lib.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = options.use_extra_bufts
    params.check_tensors = False  # reads every byte: seconds on a 4B; `convert --verify` does it once
    with problems_logged() as problems:
        pointer = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not pointer:
            raise ModelError(f"{path} cannot be loaded: {problems()}; convert or download it again")
    return pointer


class Vocabulary:
    """Text to token ids and back."""

    def __init__(self, pointer: Any) -> None:  # noqa: ANN401 - ctypes pointer
        lib = llama()
        self.pointer = pointer
        self.n_tokens = int(lib.llama_vocab_n_tokens(pointer))
        self._adds_bos = bool(lib.llama_vocab_get_add_bos(pointer))
        self._bos_id = int(lib.llama_vocab_bos(pointer))
        self._pieces: dict[int, bytes] = {}
        self._named: re.Pattern[str] | None = None  # the control tokens' names, once they are needed
        self._buffer = ctypes.create_string_buffer(256)
        self._reading = Lock()  # of pieces: requests are planned beside those that are answered
        ends = (lib.llama_vocab_eot(pointer), lib.llama_vocab_eos(pointer))
        self.end_marks = tuple({self.piece(i).decode("utf-8", "replace") for i in ends if i >= 0} - {""})

    def tokenize(self, text: str, *, parse_special: bool = True, add_bos: bool = False) -> list[int]:
        """Token ids of `text`, NFC-normalised first: llama.cpp does not, the models' own tokenizers do.

        parse_special: read `<|im_start|>` and the like as control tokens.
        add_bos: put the begin-of-sequence token first where the model wants one and the text lacks it.
        """
        pieces = self._split(text) if parse_special and len(text) > _LONG_CHARS else [text]
        tokens: list[int] = []
        for piece in pieces:
            tokens += self._tokens_of(piece, parse_special=parse_special, add_special=False)
        if add_bos and self._adds_bos and tokens[:1] != [self._bos_id]:
            tokens.insert(0, self._bos_id)
        return tokens

    def _split(self, text: str) -> Iterator[str]:
        """Pieces of a long text, cut behind control tokens, which are borders for the tokenizer too.

        llama.cpp's time grows with their number times the length of the text: minutes for 200,000 of them.
        """
        if self._named is None:
            self._named = re.compile("|".join(map(re.escape, self._control_names())) or r"(?!)")
        start = 0
        for n, match in enumerate(self._named.finditer(text), 1):
            if n % _NAMED_PER_PIECE == 0:
                yield text[start : match.end()]
                start = match.end()
        yield text[start:]

    def _control_names(self) -> list[str]:
        """What the tokenizer looks for before anything else, the longest first."""
        lib = llama()
        kinds = (
            lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        )
        names = [
            self.piece(token_id).decode("utf-8", "replace")
            for token_id in range(self.n_tokens)
            if lib.llama_vocab_get_attr(self.pointer, token_id) & kinds
        ]
        return sorted(filter(None, names), key=len, reverse=True)

    def tokenize_whole(self, text: str) -> list[int]:
        """Token ids of a text that stands alone, with what the model wants around it ([CLS] and [SEP], say)."""
        return self._tokens_of(text, parse_special=False, add_special=True)

    def _tokens_of(self, text: str, *, parse_special: bool, add_special: bool) -> list[int]:
        raw = _encode(unicodedata.normalize("NFC", text))
        capacity = len(raw) + 8
        # Not `c_int32 * capacity`: that is a new class for each length, which only the cycle collector frees.
        buffer = np.empty(capacity, dtype=np.int32)
        out = ctypes.byref(ctypes.c_int32.from_buffer(buffer.data))
        n = llama().llama_tokenize(self.pointer, raw, len(raw), out, capacity, add_special, parse_special)
        if n < 0:
            raise RequestError(f"a text of {len(raw)} bytes cannot be tokenized by this model")
        tokens: list[int] = buffer[:n].tolist()
        return tokens

    def piece(self, token_id: int) -> bytes:
        """The bytes a token stands for, control tokens written out (`<|im_end|>`)."""
        cached = self._pieces.get(token_id)
        if cached is None:
            with self._reading:
                cached = self._pieces[token_id] = self._read_piece(token_id)
        return cached

    def _read_piece(self, token_id: int) -> bytes:
        # One buffer for all: making one takes longer than filling it.
        n = llama().llama_token_to_piece(self.pointer, token_id, self._buffer, len(self._buffer), 0, True)
        if n < 0:
            self._buffer = ctypes.create_string_buffer(-n)
            return self._read_piece(token_id)
        return ctypes.string_at(self._buffer, n)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a run of tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, token_ids)).decode("utf-8", "replace")

    def has_token(self, text: str) -> bool:
        """Whether `text` is one token of its own."""
        return len(self.tokenize(text)) == 1

    def is_eog(self, token_id: int) -> bool:
        """Whether the token ends a generation."""
        return bool(llama().llama_vocab_is_eog(self.pointer, token_id))

    @property
    def end_of_turn(self) -> int | None:
        """The token that the model writes when its answer is over, if the file names one."""
        lib = llama()
        named = (int(lib.llama_vocab_eot(self.pointer)), int(lib.llama_vocab_eos(self.pointer)))
        return next((token for token in named if token >= 0), None)

    def is_control(self, token_id: int) -> bool:
        """Whether the token is structure and not text; a call's text never holds one."""
        return bool(llama().llama_vocab_is_control(self.pointer, token_id))


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as exc:
        found = f"U+{ord(text[exc.start]):04X}"
        raise RequestError(
            f"the text holds {found}, half of a surrogate pair, which is not a character"
        ) from None
