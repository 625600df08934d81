"""Checks that run a written file in llama.cpp: it loads, tokenizes as the checkpoint does, and decodes a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.checks import CheckFailed
from convert.child import NativeFailure, run_native
from convert.excerpt import write_excerpt
from convert.gguf_file import GgufFile
from convert.plan import Field
from convert.probes import PROBE_TEXTS
from convert.tokenizer import Vocabulary, load_tokenizer

# Up to here a file is decoded whole; llama.cpp maps what it loads, and that counts as resident memory.
_WHOLE_FILE_BYTES = 512 * 2**20
_DECODED_IDS = 4


@dataclass(frozen=True, slots=True)
class _Probed:
    """What llama.cpp said; finite and top are None where nothing was decoded."""

    token_ids: list[list[int]]
    end_ids: list[int]
    finite: bool | None
    top: int | None


def running_checks(
    file: GgufFile, vocabulary: Vocabulary, fields: Sequence[Field]
) -> dict[str, Callable[[], str]]:
    """The checks by name, to be called in this order. fields: all metadata that the file should have."""
    probed: list[_Probed] = []
    is_small = file.path.stat().st_size <= _WHOLE_FILE_BYTES

    def load() -> str:
        tokenizer = load_tokenizer(vocabulary.path)
        ids = tokenizer.encode(PROBE_TEXTS[1]).ids[:_DECODED_IDS] if is_small else []
        probed.append(_probe(file.path, _normalised(vocabulary), ids))
        return "llama.cpp accepts every tensor"

    return {
        "load": load,
        "tokens": lambda: _check_tokens(vocabulary, probed[0]),
        "chat template": lambda: _check_template(file, fields),
        "decode": lambda: _check_decoded(probed[0]) if is_small else _check_excerpt(file, fields),
    }


def _probe(path: Path, texts: list[str], ids: list[int]) -> _Probed:
    try:
        return _Probed(**run_native("probe", {"model": str(path), "texts": texts, "decode": ids}))
    except NativeFailure as error:
        raise CheckFailed(str(error)) from error


def _normalised(vocabulary: Vocabulary) -> list[str]:
    """The texts as llama.cpp must get them: it does not normalise, so the runtime does it before."""
    normalizer = load_tokenizer(vocabulary.path).normalizer
    return [normalizer.normalize_str(text) if normalizer else text for text in _texts(vocabulary)]


def _texts(vocabulary: Vocabulary) -> list[str]:
    """The probe texts, and every added token between letters: it must stay whole or split as in the original."""
    pairs = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return [*PROBE_TEXTS, *(f"a{token}b" for token, kind in pairs if kind in (3, 4))]


def _check_tokens(vocabulary: Vocabulary, probed: _Probed) -> str:
    tokenizer = load_tokenizer(vocabulary.path)
    n_ids = 0
    for text, found in zip(_texts(vocabulary), probed.token_ids, strict=True):
        wanted = tokenizer.encode(text, add_special_tokens=True).ids
        if found != wanted:
            pairs = enumerate(zip(found, wanted, strict=False))
            place = next((i for i, (one, other) in pairs if one != other), min(len(found), len(wanted)))
            raise CheckFailed(
                f"pre-tokenizer {vocabulary.pre} splits {text[:24]!r} differently, from token {place} on"
            )
        n_ids += len(found)
    normal = {id_ for id_ in probed.end_ids if vocabulary.types[id_] == 1} - set(vocabulary.end_ids)
    if normal:
        raise CheckFailed(f"the ordinary tokens {sorted(normal)} would end generation")
    if missing := set(vocabulary.end_ids) - set(probed.end_ids):
        raise CheckFailed(f"token ids {sorted(missing)} end generation in the checkpoint but not in the file")
    n_texts = len(probed.token_ids)
    return f"{n_texts} texts, {n_ids} ids equal; pre-tokenizer {vocabulary.pre} ({vocabulary.pre_reason})"


def _check_template(file: GgufFile, fields: Sequence[Field]) -> str:
    wanted = next((field.value for field in fields if field.key == "tokenizer.chat_template"), None)
    if file.metadata.get("tokenizer.chat_template") != wanted:
        raise CheckFailed("the stored chat template is not the checkpoint's")
    return f"{len(str(wanted))} characters" if wanted else "none in the checkpoint"


def _check_decoded(probed: _Probed) -> str:
    if not probed.finite:
        raise CheckFailed("the logits of the first decoded token are not finite")
    return f"logits finite, next token {probed.top}"


def _check_excerpt(file: GgufFile, fields: Sequence[Field]) -> str:
    excerpt = file.path.with_name(f"{file.path.name}.excerpt")
    try:
        n_layers = write_excerpt(excerpt, file, fields)
        _check_decoded(_probe(excerpt, [], list(range(_DECODED_IDS))))
        return f"logits finite (first {n_layers} layers)"
    finally:
        excerpt.unlink(missing_ok=True)
