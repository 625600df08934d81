"""tokenizer.json to what GGUF stores of a vocabulary. Byte-level BPE only; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from convert.checkpoint import one_line, read_json
from convert.errors import CheckpointError, TokenizerError
from convert.plan import Field
from convert.pretokenizers import KNOWN_HASHES, PROBE_TEXT, probe_hash

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# Tokens that llama.cpp takes for the end of generation by their text (llama-vocab.cpp, special_eog_ids).
_KNOWN_ENDS = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "</s>",
}
# GGUF's names of special tokens beside those of tokenizer_config.json.
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All that GGUF says about text.

    tokens: one a row of the embedding; ids that the tokenizer lacks are [PADn]. special: GGUF name to id.
    end_ids: ids that end generation, by the checkpoint's own configuration. pre_reason: why `pre` was chosen.
    """

    path: Path
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    pre_reason: str
    special: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    end_ids: tuple[int, ...]

    def fields(self) -> list[Field]:
        prefix = "tokenizer.ggml"
        ids = [Field(f"{prefix}.{name}_token_id", "u32", id_) for name, id_ in self.special.items()]
        return [
            Field(f"{prefix}.model", "str", "gpt2"),
            Field(f"{prefix}.pre", "str", self.pre),
            Field(f"{prefix}.tokens", "str[]", self.tokens),
            Field(f"{prefix}.token_type", "i32[]", self.types),
            Field(f"{prefix}.merges", "str[]", self.merges),
            *ids,
            # Always written: some of llama.cpp's pre-tokenizers add a BOS by default.
            Field(f"{prefix}.add_bos_token", "bool", self.adds_bos),
            Field(f"{prefix}.add_eos_token", "bool", self.adds_eos),
        ]


def read_vocabulary(
    folder: Path,
    n_vocab: int,
    *,
    pre: str | None = None,
    known_hashes: Mapping[str, str] = KNOWN_HASHES,
) -> Vocabulary:
    """The vocabulary of the checkpoint in `folder`, padded to n_vocab, the embedding's rows.

    pre: the pre-tokenizer's name if the user gives it; otherwise it is told from `known_hashes`.
    Raises TokenizerError for another kind of tokenizer, an unknown hash, or more tokens than rows.
    """
    path = folder / "tokenizer.json"
    parsed = _byte_level_bpe(path)
    tokenizer = load_tokenizer(path)
    settings = _optional_json(folder / "tokenizer_config.json")
    name, reason = _pre_tokenizer(tokenizer, pre, known_hashes)
    by_id = {id_: token for token, id_ in tokenizer.get_vocab(with_added_tokens=True).items()}
    if max(by_id) >= n_vocab:
        raise TokenizerError(f"tokenizer.json has token id {max(by_id)}, the embedding has {n_vocab} rows")
    special, end_ids = _special_and_ends(folder, settings, by_id)
    start, end = _added_around(tokenizer)
    tokens, types = _token_list(by_id, parsed.get("added_tokens") or [], n_vocab)
    return Vocabulary(
        path=path,
        tokens=tokens,
        types=types,
        merges=tuple(_merge_text(merge) for merge in parsed["model"]["merges"]),
        pre=name,
        pre_reason=reason,
        special=special,
        adds_bos=start == special.get("bos") and start is not None,
        adds_eos=end == special.get("eos") and end is not None,
        end_ids=end_ids,
    )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises TokenizerError if the library refuses it."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{path} is not a tokenizer: {one_line(error)}") from error


def _byte_level_bpe(path: Path) -> dict[str, Any]:
    try:
        parsed = read_json(path)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    model = parsed.get("model") or {}
    if model.get("type") != "BPE":
        raise TokenizerError(f"{path} is a {model.get('type')} tokenizer; only byte-level BPE is supported")
    if model.get("byte_fallback") or "ByteLevel" not in _component_types(parsed.get("decoder")):
        raise TokenizerError(f"{path} is BPE without byte-level pieces (SentencePiece style), not supported")
    if not model.get("merges"):
        raise TokenizerError(f"{path} has no merges")
    return parsed


def _component_types(component: Mapping[str, Any] | None) -> set[str]:
    """The type of a tokenizer.json component and of what a Sequence holds."""
    if not component:
        return set()
    parts = component.get("decoders") or component.get("pretokenizers") or []
    return {str(component.get("type"))}.union(*(_component_types(part) for part in parts))


def _pre_tokenizer(tokenizer: Tokenizer, given: str | None, known: Mapping[str, str]) -> tuple[str, str]:
    found = probe_hash(tokenizer.encode(PROBE_TEXT).ids)
    if given is not None:
        return given, "given"
    if found not in known:
        raise TokenizerError(
            f"tokenizer.json splits the probe text like no known tokenizer (hash {found[:16]}); "
            "name llama.cpp's pre-tokenizer with --pre if you know that it is the right one"
        )
    return known[found], f"probe hash {found[:16]}"


def _token_list(
    by_id: Mapping[int, str], added: Sequence[Mapping[str, Any]], n_vocab: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    added_types = {int(entry["id"]): _added_type(entry) for entry in added}
    tokens = tuple(by_id.get(id_, f"[PAD{id_}]") for id_ in range(n_vocab))
    types = tuple(added_types.get(id_, _NORMAL) if id_ in by_id else _UNUSED for id_ in range(n_vocab))
    return tokens, types


def _added_type(entry: Mapping[str, Any]) -> int:
    # Some checkpoints do not mark <|...|> as special; llama.cpp takes them for control tokens whatever we write.
    text = str(entry["content"])
    looks_special = text.startswith(("<|", "<｜")) and text.endswith(("|>", "｜>"))
    return _CONTROL if entry.get("special") or looks_special else _USER_DEFINED


def _merge_text(merge: str | Sequence[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(merge)


def _special_ids(settings: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    """Ids of bos, eos, unk, pad from tokenizer_config.json alone: config.json's bos is a class default in places."""
    found = {}
    for name, gguf_name in _SPECIAL.items():
        entry = settings.get(f"{name}_token")
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if isinstance(text, str) and text in ids:
            found[gguf_name] = ids[text]
    return found


def _added_around(tokenizer: Tokenizer) -> tuple[int | None, int | None]:
    """The special ids that the tokenizer puts before and after a text, measured on one letter."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    if full == plain:
        return None, None
    start = full[0] if full[0] != plain[0] else None
    end = full[-1] if full[-1] != plain[-1] else None
    return start, end


def _special_and_ends(
    folder: Path, settings: Mapping[str, Any], by_id: Mapping[int, str]
) -> tuple[dict[str, int], tuple[int, ...]]:
    """Special ids by GGUF name, and all ids that end generation.

    GGUF has eos, eot and eom for the latter, beside what llama.cpp knows by its text; a fourth unknown one cannot be
    said, and the check of the written file reports it. Raises TokenizerError where there is none: llama.cpp would
    then end at id 11, whatever that is.
    """
    special = _special_ids(settings, {token: id_ for id_, token in by_id.items()})
    declared = _optional_json(folder / "generation_config.json").get("eos_token_id")
    listed = declared if isinstance(declared, list) else [declared]
    ends = [id_ for id_ in listed if isinstance(id_, int) and id_ in by_id]
    if "eos" not in special:
        if not ends:
            raise TokenizerError(f"{folder} names no token that ends generation")
        special["eos"] = ends[0]
    unknown = sorted(id_ for id_ in {*ends} - {special["eos"]} if by_id.get(id_) not in _KNOWN_ENDS)
    special |= dict(zip(("eot", "eom"), unknown, strict=False))
    return special, tuple(sorted({*ends, special["eos"]}))


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def read_chat_template(folder: Path, override: Path | None = None) -> str | None:
    """The chat template, from `override` or the checkpoint (chat_template.jinja first, as transformers does)."""
    if override is not None:
        return _text(override)
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return _text(jinja)
    nested = _optional_json(folder / "chat_template.json").get("chat_template")
    found = _optional_json(folder / "tokenizer_config.json").get("chat_template", nested)
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, Mapping)}
        found = named.get("tool_use") or named.get("default")
    return found if isinstance(found, str) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} cannot be read as a chat template: {one_line(error)}") from error
