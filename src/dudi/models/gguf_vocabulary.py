"""A tokenizer as a GGUF file describes it: tokens, their kinds, merges or scores, special ids, the chat template.

llama.cpp has its own tokenizers: byte-level BPE (`gpt2`), where a name (`tokenizer.ggml.pre`) says how text is cut
before merging, and SentencePiece's BPE (`llama`), where scores order the merges. What it cannot do as the model's own
tokenizer does is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from gguf import TokenType
from transformers import PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from dudi.errors import ConfigError

WORDS_WITH_MARKS = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
"""How the package's miniature models cut text. `qwen35` cuts words and digits alike; only runs of spaces differ."""
CUTS = {
    **{GGUF_PRE_TOKENIZER_SPLITS[name]: name for name in ("qwen2", "qwen35", "llama-bpe", "tekken", "gpt-4o")},
    WORDS_WITH_MARKS: "qwen35",
}
"""llama.cpp's names of the regular expressions that cut text."""
LONE_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "▁"


Vocabulary = dict[str, Any]
"""What a file says of its tokenizer, as `GGUFWriter` is told it: by the names of its methods, without `add_`."""


def vocabulary_of(
    tokenizer: PreTrainedTokenizerBase, rows: int, ends: Sequence[int] = (), pre: str | None = None
) -> Vocabulary:
    """Describe a tokenizer.

    Rows of the model's embedding without a token are filled up. `ends` are tokens that end an answer, the end of turn
    first; `pre` is llama.cpp's name of how text is cut, which None finds out.

    Raises:
        ConfigError: llama.cpp would read text in another way.
    """
    if not tokenizer.is_fast:
        raise ConfigError("--gguf: the model has no tokenizer.json, from which the file's tokenizer is made")
    core: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if (kind := core["model"]["type"]) != "BPE":
        raise ConfigError(f"--gguf: {kind} tokenizers cannot be exported; BPE and SentencePiece's BPE can")
    byte_level = not core["model"].get("byte_fallback")
    adds_space = _check_normalizer(core, byte_level)
    tokens, types = _tokens(tokenizer, rows, byte_level)
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in core["model"]["merges"]]
    if byte_level:
        found = pre or _cut(core["pre_tokenizer"])
    elif pre is not None:
        raise ConfigError("--pre: names a cut of byte-level BPE, and this tokenizer is SentencePiece's")
    else:
        found = "default"
    if isinstance(tokenizer.chat_template, dict):
        raise ConfigError("--gguf: the tokenizer has several chat templates; give one with --chat-template FILE")
    vocabulary: Vocabulary = {"tokenizer_model": "gpt2" if byte_level else "llama", "tokenizer_pre": found}
    vocabulary |= {"token_list": tokens, "token_types": types}
    if byte_level:
        vocabulary["token_merges"] = [" ".join(pair) for pair in merges]
    else:
        vocabulary |= {"token_scores": _scores(tokens, merges), "add_space_prefix": adds_space}
    vocabulary |= {f"{name}_token_id": value for name, value in _special_ids(tokenizer, ends).items()}
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    vocabulary |= {"add_bos_token": adds_bos, "add_eos_token": False}
    if tokenizer.chat_template:
        vocabulary["chat_template"] = tokenizer.chat_template
    return vocabulary


def _special_ids(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> dict[str, int]:
    """Special tokens by llama.cpp's names. It stops at `eos`, `eot` and `eom`: three ends have a place."""
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    if ids["eos"] is None and ends:
        ids["eos"] = ends[0]
    others = [end for end in dict.fromkeys(ends) if end != ids["eos"]]
    if len(others) > 2:
        raise ConfigError(f"--gguf: {len(others) + 1} tokens end an answer, and a GGUF file has a place for three")
    ids |= dict(zip(("eot", "eom"), others, strict=False))
    return {name: int(value) for name, value in ids.items() if value is not None}


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int, byte_level: bool) -> tuple[list[str], list[TokenType]]:
    """The token of every row, and what it is."""
    vocabulary = tokenizer.get_vocab()
    if vocabulary and max(vocabulary.values()) >= rows:
        token = max(vocabulary, key=lambda one: vocabulary[one])
        raise ConfigError(f"--gguf: the token {token!r} is number {vocabulary[token]} of a model with {rows} rows")
    tokens = [f"[PAD{row}]" for row in range(rows)]
    types = [TokenType.UNUSED] * rows
    added = tokenizer.added_tokens_decoder
    for token, row in vocabulary.items():
        if row in added:
            types[row] = TokenType.CONTROL if added[row].special else TokenType.USER_DEFINED
        elif token != tokens[row]:
            lone = not byte_level and LONE_BYTE.fullmatch(token)
            types[row] = TokenType.BYTE if lone else TokenType.NORMAL
        tokens[row] = token
        if not byte_level and types[row] == TokenType.USER_DEFINED:
            tokens[row] = token.replace(SPACE, " ")
    if not byte_level and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = TokenType.UNKNOWN
    return tokens, types


def _check_normalizer(core: dict[str, Any], byte_level: bool) -> bool:
    """Whether a space is put in front of a text; what changes it in a way that llama.cpp does not is refused."""
    normalizer = core["normalizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kinds = [step["type"] for step in steps]
    if byte_level:
        if [kind for kind in kinds if kind != "NFC"]:
            raise ConfigError(f"--gguf: llama.cpp has no such normalizer before byte-level BPE: {', '.join(kinds)}")
        return False
    pre = core["pre_tokenizer"] or {}
    spaces = [step for step in steps if step["type"] == "Replace" and step["content"] == SPACE]
    if len(spaces) + kinds.count("Prepend") != len(steps) or not (spaces or pre.get("type") == "Metaspace"):
        named = ", ".join(kinds) or "none"
        raise ConfigError(f"--gguf: llama.cpp has no such normalizer before SentencePiece: {named}")
    return "Prepend" in kinds or pre.get("prepend_scheme") in ("first", "always")


def _cut(pre_tokenizer: dict[str, Any] | None) -> str:
    """llama.cpp's name of how text is cut before bytes are merged."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [step["type"] for step in steps]
    own = kinds[-1:] == ["ByteLevel"] and steps[-1]["use_regex"] and not steps[-1]["add_prefix_space"]
    if own and kinds == ["ByteLevel"]:
        return "gpt-2"
    if own and kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    whole = kinds == ["Split", "ByteLevel"] and not steps[1]["use_regex"] and not steps[1]["add_prefix_space"]
    pattern = steps[0]["pattern"].get("Regex") if whole else None
    if pattern in CUTS:
        return CUTS[pattern]
    way = pattern or ", ".join(kinds) or "not at all"
    raise ConfigError(
        f"--gguf: llama.cpp has no name for how this tokenizer cuts text ({way}); "
        f"--pre NAME takes one that is near: gpt-2, smollm, {', '.join(dict.fromkeys(CUTS.values()))} ..."
    )


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """SentencePiece's scores: the earlier a merge makes a token, the higher; what no merge makes stands at 0."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges, 1):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]
