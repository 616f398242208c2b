"""Text to token ids of an MT encoder, which has to be told the language, or of an LLM, which has not."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from dudi.errors import ConfigError, DataError, first_of
from dudi.stacking.codes import by_language, find_language, nearest_code
from dudi.stacking.fitting import choice_columns, fit
from dudi.stacking.rows import StackRow

Ids = dict[str, list[Any]]
SHORTENED = "shortened"
"""Of encoded rows and of batches: whether a row was longer than the longest that is read."""
OWN = "llm_"
"""Begins the names of what the LLM reads of a row in its own tokens, beside the encoder."""
_READ = ("input_ids", "attention_mask", "choice_spans")
INPUTS = (*_READ, *(OWN + name for name in _READ))
"""What a model's forward reads of a batch."""


class Source:
    """A tokenizer that reads rows, each in its own language.

    A row's code is the tokenizer's own, or one that the table of `dudi.stacking.codes` leads to one: `id` and `ind` are
    NLLB's `ind_Latn`. Where the table knows another language or another script alone, that is read and noted.

    Args:
        tokenizer: Of the encoder (with `src_lang`: NLLB, M2M100; or without: MT5, XLM-R), or of an LLM.
        codes: The tokenizer's code for each code that rows have, before the table is asked: {"id": "ind_Latn"}.
        separator: What is put between the two texts of a pair where the tokenizer itself `glues` them.
        beside: The source of an LLM that reads its own tokens of each row too (`llm_tokens`): rows are then encoded by
            both, what is its own under names with `llm_` in front.

    Attributes:
        stand_ins: Codes of rows that are read as another language or script: {"hin_Latn": "hin_Deva, since ..."}.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        codes: Mapping[str, str] | None = None,
        *,
        separator: str = "\n",
        beside: Source | None = None,
    ) -> None:
        self.tokenizer, self.codes = tokenizer, dict(codes or {})
        self.beside = beside
        self.languages = language_codes(tokenizer)
        self.stand_ins: dict[str, str] = {}
        self.separate(separator)
        self._named = by_language(self.languages)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        for code in self.codes.values():
            self._own(code)

    def separate(self, separator: str) -> None:
        """Set what is put between the two texts of a pair, for both tokenizers."""
        self.separator = separator
        if self.beside is not None:
            self.beside.separate(separator)

    def check(self, language: str) -> str:
        """The tokenizer's code for a row's language; any code where the tokenizer knows no languages.

        Raises:
            ConfigError: unknown; the message names the nearest valid one.
        """
        code = self.codes.get(language, language)
        if not self.languages:
            return code
        found = self._own(code)
        meant = find_language(code)
        if meant is not None and meant.stand_in and meant.code not in self._named:
            self.stand_ins[language] = f"{found} ({meant.stand_in})"
        return found

    def _own(self, code: str) -> str:
        """The tokenizer's own code, or one for the same language; else one that stands in for it."""
        if not self.languages or code in self.languages:
            return code
        meant = find_language(code)
        for name in () if meant is None else (meant.code, meant.nllb):
            if name in self._named:
                return self._named[name]
        near = nearest_code(code, self.languages)
        hint = f" (did you mean '{near}'?)"
        if near is None and meant is not None:
            hint = f", which has no {meant.code}: it has {first_of(self.languages, 12)}"
        raise ConfigError(f"language: '{code}' is no source language of this encoder's tokenizer{hint}")

    def check_rows(self, rows: Sequence[StackRow]) -> None:
        """Check each language once, before anything is read.

        Raises:
            DataError: naming the first row of each language that is unknown, and the nearest code that is not.
        """
        first: dict[str, StackRow] = {}
        for row in rows:
            first.setdefault(row.language, row)
        unknown = []
        for row in first.values():
            try:
                self.check(row.language)
            except ConfigError as error:
                unknown.append((row, error))
        if unknown:
            (row, reason), *others = unknown
            places = [f"'{other.language}' ({other.name})" for other, _ in others]
            more = f"\nneither is {first_of(places, 8)}" if others else ""
            raise DataError(f"{row.name}: {reason}{more}")

    @functools.cached_property
    def glues(self) -> bool:
        """Whether the tokenizer writes the two texts of a pair as one word, as in `noon.She`."""
        return "noonShe" in self.tokenizer.decode(self.tokenizer("noon", "She", verbose=False)["input_ids"])

    def batch(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        max_length: int = 256,
    ) -> dict[str, Tensor]:
        """Tensors of a batch: `input_ids` and `attention_mask`, (B, T), padding right; of both tokenizers."""
        batch = self.pad(self.encode(texts, languages, pairs, max_length=max_length))
        if self.beside is not None:
            batch |= _own(self.beside.batch(texts, languages, pairs, max_length=max_length))
        return batch

    def encode(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        max_length: int = 256,
        offsets: bool = False,
    ) -> list[Ids]:
        """Token ids of each text, cut at `max_length` (of a pair, the longer side first), and whether it was cut.

        Args:
            texts: The texts.
            languages: The language of each.
            pairs: The second text of each; None where there is none.
            max_length: Tokens that are read, special ones included.
            offsets: Give the `offset_mapping` too.
        """
        found: list[Ids] = [{} for _ in texts]
        second = [None] * len(texts) if pairs is None else pairs
        groups: dict[tuple[str, bool], list[int]] = {}
        for place, (language, pair) in enumerate(zip(languages, second, strict=True)):
            groups.setdefault((self.check(language), pair is not None), []).append(place)
        for (code, paired), places in groups.items():
            if self.languages:
                self.tokenizer.src_lang = code
            asked = [texts[place] for place in places]
            between = self.separator if paired and self.glues else ""
            behind = [f"{between}{second[place]}" for place in places] if paired else None
            for place, ids in zip(places, self._cut(asked, behind, max_length, offsets), strict=True):
                found[place] = ids
        return found

    def _cut(self, texts: list[str], pairs: list[str] | None, max_length: int, offsets: bool) -> list[Ids]:
        """Encode in the language that is set; what is too long is encoded again, cut."""
        whole = self._plain(texts, pairs, offsets)
        long = [place for place, ids in enumerate(whole) if len(ids["input_ids"]) > max_length]
        if long:
            behind = None if pairs is None else [pairs[place] for place in long]
            cut = self._plain([texts[place] for place in long], behind, offsets, max_length)
            for place, ids in zip(long, cut, strict=True):
                whole[place] = ids | {SHORTENED: [True]}
        return whole

    def _plain(
        self, texts: list[str], pairs: list[str] | None, offsets: bool, max_length: int | None = None
    ) -> list[Ids]:
        encoded = self.tokenizer(
            texts,
            pairs,
            truncation=max_length is not None,
            max_length=max_length,
            return_offsets_mapping=offsets,
            verbose=False,  # or it warns of every long text
        )
        keys = [key for key in encoded if key != "token_type_ids"]
        columns = [encoded[key] for key in keys]
        return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]

    def pad(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Rows of ids as tensors, padding right."""
        ids = [torch.tensor(row["input_ids"], dtype=torch.long) for row in rows]
        mask = [torch.ones_like(own) for own in ids]
        filler = int(self.tokenizer.pad_token_id or 0)
        padded = pad_sequence(ids, batch_first=True, padding_value=filler)
        return {"input_ids": padded, "attention_mask": pad_sequence(mask, batch_first=True)}

    def encode_rows(self, rows: Sequence[StackRow], *, max_length: int = 256) -> list[Ids]:
        """Rows of a task: their ids, whether they were shortened, and `choice_spans` of rows that have choices.

        Of a row with choices that is too long the passage is shortened, and the question and the choices stay whole as
        long as there is passage left.

        Raises:
            ConfigError: choices need a fast tokenizer, or `max_length` has no place for a row's choices at all.
        """
        if any(row.choices for row in rows):
            encoded = self._encode_choices(rows, max_length)
        else:
            pairs = [row.pair for row in rows]
            languages = [row.language for row in rows]
            encoded = self.encode([row.text for row in rows], languages, pairs, max_length=max_length)
        if self.beside is not None:
            own = self.beside.encode_rows(rows, max_length=max_length)
            for ids, its in zip(encoded, own, strict=True):
                ids |= _own(its) | ({SHORTENED: [True]} if SHORTENED in its else {})
        return encoded

    def _encode_choices(self, rows: Sequence[StackRow], max_length: int) -> list[Ids]:
        if not self.tokenizer.is_fast:
            raise ConfigError(f"choices need a fast tokenizer, and this {type(self.tokenizer).__name__} is none")

        def encode(texts: Sequence[str], places: Sequence[int]) -> list[Ids]:
            languages = [rows[place].language for place in places]
            return self.encode(texts, languages, max_length=2**31 - 1, offsets=True)

        encoded = []
        for ids, spans, shortened in fit(rows, encode, max_length):
            kept: Ids = {key: values for key, values in ids.items() if key != "offset_mapping"}
            kept["choice_spans"] = [list(choice_columns(ids["offset_mapping"], span)) for span in spans]
            encoded.append(kept | {SHORTENED: [True]} if shortened else kept)
        return encoded

    def collate(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Encoded rows as tensors.

        `shortened` (B,) is 1 where a row was; `choice_spans` (B, C, 2) are (0, 0) where a row has fewer choices.
        """
        batch = self.pad(rows)
        batch[SHORTENED] = torch.tensor([int(SHORTENED in row) for row in rows])
        if any("choice_spans" in row for row in rows):
            most = max(len(row["choice_spans"]) for row in rows)
            spans = [row["choice_spans"] + [[0, 0]] * (most - len(row["choice_spans"])) for row in rows]
            batch["choice_spans"] = torch.tensor(spans)
        if self.beside is not None:
            read = []
            for row in rows:
                read.append({key.removeprefix(OWN): values for key, values in row.items() if key.startswith(OWN)})
            own = self.beside.collate(read)
            del own[SHORTENED]  # a row that either shortens is shortened
            batch |= _own(own)
        return batch


def read_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model's forward reads of a batch."""
    return {key: batch[key] for key in INPUTS if key in batch}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {OWN + key: value for key, value in values.items()}


def language_codes(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The source languages that a translation tokenizer knows; empty for tokenizers without languages."""
    if not isinstance(getattr(type(tokenizer), "src_lang", None), property):
        return ()
    to_id = getattr(tokenizer, "lang_code_to_id", None)  # M2M100's; NLLB keeps them among its special tokens
    if to_id:
        return tuple(to_id)
    base = {tokenizer.special_tokens_map.get(key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return tuple(token for token in tokenizer.all_special_tokens if token not in base and token.isidentifier())


def of_like_length(encoded: Sequence[Ids], batch_size: int) -> Iterator[list[int]]:
    """Places of encoded rows, the shortest first, so that a batch holds little padding."""
    order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]["input_ids"]))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]
