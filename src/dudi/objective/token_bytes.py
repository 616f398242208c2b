"""The exact bytes of every token of a tokenizer.

A token's name is a spelling of bytes: byte-level BPE writes each byte as a printable character ("Ġ" for a space),
SentencePiece writes "▁" for a space and "<0xE1>" for a lone byte. `decode([id])` is no substitute: a token that ends
inside a character decodes to U+FFFD, and a leading space is dropped.

A spelling here is a `str` with one character for each byte (latin-1). Characters from U+0100 on stand for special
tokens, which have no bytes: so prefixes, borders and sorting are those of plain strings.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import json
import re
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from dudi.data.chat import Tokens
from dudi.errors import ConfigError

FIRST_SPECIAL = 256
"""The first character that stands for a special token."""

PROBE = "Apa kabar? Xin chào, 12,345.67 €\n\n\tสวัสดี வணக்கம் Kumusta  မင်္ဂလာပါ 😀 end"
"""What every tokenizer must give back byte for byte; it is in NFC."""

TEXT_ALONE = "seqkd with off_policy_loss: cross_entropy, which needs a teacher's text alone"
"""What works under any teacher, for messages."""

_UNICODE_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled"})
_INVALID = re.compile("([\udc80-\udcff])")


def _byte_alphabet() -> dict[str, str]:
    """Byte-level BPE's printable character of each byte -> the byte (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    names = {chr(byte): chr(byte) for byte in printable}
    return names | {chr(256 + place): chr(byte) for place, byte in enumerate(others)}


def spelling_of(text: str) -> str:
    """The UTF-8 bytes of a text, one character each."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


@dataclasses.dataclass(frozen=True)
class TokenBytes:
    """The bytes of one tokenizer's tokens, and an encoder that keeps bytes as they are."""

    # By id, for as many ids as the head has rows; None where a token has no bytes (special, unused, padding).
    spellings: list[str | None]
    specials: dict[str, int]  # names of the special tokens with their ids
    encoder: Tokenizer  # the tokenizer without Unicode normalisation, and without an eye for special tokens in a text
    dummy_prefix: bool  # whether it writes a space before every text (SentencePiece's `add_dummy_prefix`)

    @functools.cached_property
    def _sorted(self) -> tuple[list[str], list[int]]:
        """Spellings in order, and their ids."""
        pairs = sorted((spelling, index) for index, spelling in enumerate(self.spellings) if spelling)
        ids = [index for _, index in pairs]
        return [spelling for spelling, _ in pairs], ids

    def beginning_with(self, prefix: str) -> list[int]:
        """Ids of the tokens that begin with some bytes, in the order of their spellings."""
        spellings, ids = self._sorted
        start = bisect.bisect_left(spellings, prefix)
        return ids[start : bisect.bisect_left(spellings, prefix + chr(0x10FFFF), start)]

    @functools.cached_property
    def of_byte(self) -> dict[str, int]:
        """The token of each single byte, where there is one."""
        return {spelling: i for i, spelling in enumerate(self.spellings) if spelling is not None and len(spelling) == 1}

    def spell(self, ids: Tokens) -> str:
        """The bytes of tokens, up to the first that has none."""
        parts = []
        for index in ids:
            spelling = self.spellings[int(index)]
            if spelling is None:
                break
            parts.append(spelling)
        return "".join(parts)

    def encode(self, spelling: str) -> list[int]:
        """The tokens of some bytes, none of which is a special token.

        Bytes that are no UTF-8 become tokens of one byte each; where such a token is missing the ids end.
        """
        ids: list[int] = []
        text = spelling.encode("latin-1").decode("utf-8", "surrogateescape")
        for part in _INVALID.split(text):
            if _INVALID.fullmatch(part):
                lone = self.of_byte.get(chr(ord(part) - 0xDC00))
                if lone is None:
                    return ids
                ids.append(lone)
            elif part:
                ids += self.encoder.encode(part, add_special_tokens=False).ids
        return ids


def token_bytes(tokenizer: PreTrainedTokenizerBase, size: int | None = None, name: str = "") -> TokenBytes:
    """Read the bytes of every token of a byte-level BPE or SentencePiece (BPE or Unigram) tokenizer.

    `size` are the rows of the model's head, as many as the tokenizer has ids when None; messages tell the name.

    Raises:
        ConfigError: a tokenizer whose tokens are no bytes (WordPiece), or which changes text.
    """
    name = name or str(tokenizer.name_or_path or "the tokenizer")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        kind = type(tokenizer).__name__
        raise ConfigError(f"{name}: {kind} has no tokenizer.json, and the bytes of its tokens cannot be read")
    described = json.loads(backend.to_str())
    spell = _speller(described, name)
    size = len(tokenizer) if size is None else size
    added = tokenizer.added_tokens_decoder
    unknown = described["model"].get("unk_token")
    special = {token.content: index for index, token in added.items() if token.special}
    silent = set(special.values()) | {i for t, i in tokenizer.get_vocab().items() if t == unknown}
    spellings: list[str | None] = [None] * size
    for token, index in tokenizer.get_vocab().items():
        if index < size and index not in silent and token:
            spellings[index] = spell(token, index in added)
    # The tokenizer as bytes see it: no special tokens, no NFC, no length limits.
    plain = {**described, "post_processor": None, "truncation": None, "padding": None}
    plain["normalizer"] = _without_unicode(described.get("normalizer"))
    encoder = Tokenizer.from_str(json.dumps(plain))
    encoder.encode_special_tokens = True
    found = TokenBytes(spellings, {t: i for t, i in special.items() if i < size}, encoder, False)
    dummy = found.spell(encoder.encode("a", add_special_tokens=False).ids) == " a"
    found = dataclasses.replace(found, dummy_prefix=dummy)
    expected = (" " if dummy else "") + spelling_of(PROBE)
    given = found.spell(encoder.encode(PROBE, add_special_tokens=False).ids)
    if given != expected:
        place = common_length(given, expected)
        around = slice(max(0, place - 8), place + 8)
        shown, other = (text[around].encode("latin-1", "replace") for text in (expected, given))
        raise ConfigError(
            f"{name}: its tokenizer does not give a text back byte for byte ({shown!r} became {other!r}), so that it "
            f"cannot be lined up with another; take a teacher of the student's family, or {TEXT_ALONE}"
        )
    return found


def _speller(described: dict[str, Any], name: str) -> Any:
    """What turns a token's name into its spelling, by the kind of tokenizer."""
    model, kinds = described["model"]["type"], _kinds(described.get("decoder"))
    if model in ("WordPiece", "WordLevel") or "WordPiece" in kinds:
        raise ConfigError(
            f"{name}: a {model} tokenizer's tokens do not say where spaces are; take a teacher with a byte-level or "
            f"SentencePiece tokenizer, or {TEXT_ALONE}"
        )
    if "ByteLevel" in kinds or "ByteLevel" in _kinds(described.get("pre_tokenizer")):
        return _byte_level
    if "Metaspace" in kinds or "ByteFallback" in kinds or "Replace" in kinds:
        return functools.partial(_sentence_piece, fallback=bool(described["model"].get("byte_fallback")))
    raise ConfigError(
        f"{name}: a {model} tokenizer that is neither byte-level nor SentencePiece; the bytes of its tokens cannot be "
        f"read. Take a teacher of another family, or {TEXT_ALONE}"
    )


def _kinds(part: dict[str, Any] | None) -> set[str]:
    """The types of a tokenizer's part and of the parts in it."""
    if part is None:
        return set()
    inner = [*part.get("decoders", ()), *part.get("pretokenizers", ()), *part.get("normalizers", ())]
    return {part["type"]}.union(*(_kinds(one) for one in inner))


_ALPHABET = _byte_alphabet()


def _byte_level(token: str, added: bool) -> str:
    """An added token stands for its own text; so does, when decoded, one with a character outside the alphabet."""
    if added or any(character not in _ALPHABET for character in token):
        return spelling_of(token)
    return "".join(_ALPHABET[character] for character in token)


_LONE_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def _sentence_piece(token: str, added: bool, fallback: bool) -> str:
    lone = _LONE_BYTE.fullmatch(token) if fallback else None
    return chr(int(lone[1], 16)) if lone else spelling_of(token.replace("▁", " "))


def _without_unicode(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if normalizer is None or normalizer["type"] in _UNICODE_NORMALIZERS:
        return None
    if normalizer["type"] != "Sequence":
        return normalizer
    kept = [one for one in map(_without_unicode, normalizer["normalizers"]) if one is not None]
    return {**normalizer, "normalizers": kept}


def common_length(one: str, other: str) -> int:
    """Length of the beginning that two strings share."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)
