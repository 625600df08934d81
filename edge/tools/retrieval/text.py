"""Text to the terms that the index counts: identifiers split, stop words dropped, English stemmed, CJK in pairs.

Languages are not detected. English words are stemmed, words of other alphabets are kept as they are (without
accents), and scripts that write no spaces are cut into overlapping pairs of characters.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from importlib import resources
from typing import Any

ANALYSIS_VERSION = 1  # part of an index's identity: raise it with every change to the terms
MAX_QUERY_CHARS = 20_000  # of a pasted document the end counts, where the question stands
MAX_SENTENCES = 12
_MAX_WORD_CHARS = 64  # longer ones are data, not words

_CASE_CHANGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W_]+")
# Han, kana, Thai, Lao, Khmer, Hangul: no spaces between words, or endings grown onto them.
_UNSPACED = re.compile(
    "([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1780-\u17ff\uac00-\ud7af]+)"
)
_CAPITALIZED = re.compile(r"\b\w*[A-Z]\w*")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+|(?<=[。！？；])")


def terms(text: str) -> list[str]:
    """The terms of a text in its order, repeated where they repeat."""
    found: list[str] = []
    for word in _WORD.findall(_CASE_CHANGE.sub(" ", unicodedata.normalize("NFKC", text))):
        if len(word) <= _MAX_WORD_CHARS:
            found += _terms_of_word(word.lower())
    return found


def names(text: str) -> frozenset[str]:
    """The terms of words with a capital letter in them, most of which are names."""
    return frozenset(terms(" ".join(_CAPITALIZED.findall(text))))


def sentences(text: str) -> list[str]:
    """The sentences of a text; a request for several things names one in each."""
    return [part for part in _SENTENCE_END.split(text) if part and not part.isspace()]


@functools.lru_cache(maxsize=1 << 16)
def _terms_of_word(word: str) -> tuple[str, ...]:
    if word.isascii():
        return () if word in _stop_words() else (_stemmer().stemWord(word),)
    if _UNSPACED.search(word) is None:
        return (_without_accents(word),)
    parts = [part for part in _UNSPACED.split(word) if part]
    return tuple(
        term for part in parts for term in (_pairs(part) if _UNSPACED.match(part) else _terms_of_word(part))
    )


def _pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(len(text) - 1)] or [text]


def _without_accents(word: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))


@functools.cache
def _stop_words() -> frozenset[str]:
    text = resources.files("edge.tools").joinpath("data/stop_words.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split() if not line.startswith("#"))


@functools.cache
def _stemmer() -> Any:  # noqa: ANN401 - the library is untyped
    import snowballstemmer

    return snowballstemmer.stemmer("english")
