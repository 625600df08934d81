"""Reads GBNF with llama.cpp, byte by byte, so that any text can be tried whatever the vocabulary's words are."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp


class GbnfReader:
    """A vocabulary loaded without weights, and the grammars that are tried on it."""

    def __init__(self, model_path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(model_path).encode(), params)
        assert self._model, f"no vocabulary in {model_path}"
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._token_of_byte = self._single_bytes()
        self._end = llama_cpp.llama_vocab_eot(self._vocab)

    def _single_bytes(self) -> dict[int, int]:
        found: dict[int, int] = {}
        buffer = ctypes.create_string_buffer(64)
        for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 64, 0, False)
            if length == 1:
                found.setdefault(buffer.raw[0], token)
        return found

    def compiles(self, gbnf: str) -> bool:
        """Whether llama.cpp takes the grammar at all."""
        sampler = self._start(gbnf)
        if not sampler:
            return False
        llama_cpp.llama_sampler_free(sampler)
        return True

    def accepted_prefix(self, gbnf: str, text: str) -> tuple[int, bool]:
        """How many bytes of the text are accepted, and whether the text may end after them."""
        sampler = self._start(gbnf)
        assert sampler, "llama.cpp refuses the grammar"
        try:
            count = 0
            for byte in text.encode():
                token = self._token_of_byte[byte]
                if not self._allows(sampler, token):
                    break
                llama_cpp.llama_sampler_accept(sampler, token)
                count += 1
            return count, self._allows(sampler, self._end)
        finally:
            llama_cpp.llama_sampler_free(sampler)

    def accepts(self, gbnf: str, text: str) -> bool:
        """Whether the whole text is in the language."""
        count, complete = self.accepted_prefix(gbnf, text)
        return complete and count == len(text.encode())

    def _start(self, gbnf: str) -> object:
        return llama_cpp.llama_sampler_init_grammar(self._vocab, gbnf.encode(), b"root")

    @staticmethod
    def _allows(sampler: object, token: int) -> bool:
        """Asks before accepting: accepting a refused token ends the process."""
        data = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(token, 1.0, 0.0))
        array = llama_cpp.llama_token_data_array(data, 1, -1, False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return data[0].logit > float("-inf")
