"""Text to token ids of an MT encoder, which has to be told the language, or of an LLM, which has not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dudi.errors import ConfigError, DataError
from dudi.stacking.rows import StackRow

Ids = dict[str, list[Any]]


class Source:
    """A tokenizer that reads rows, each in its own language.

    Args:
        tokenizer: Of the encoder (with `src_lang`: NLLB, M2M100; or without: MT5, XLM-R), or of an LLM.
        codes: The tokenizer's code for each code that rows have, where the two differ: {"id": "ind_Latn"}.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, codes: Mapping[str, str] | None = None) -> None:
        self.tokenizer, self.codes = tokenizer, dict(codes or {})
        self.languages = language_codes(tokenizer)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        for code in self.codes.values():
            self._known(code)

    def check(self, language: str) -> str:
        """The tokenizer's code for a row's language; any code where the tokenizer knows no languages.

        Raises:
            ConfigError: unknown; the message names the nearest valid one.
        """
        code = self.codes.get(language, language)
        self._known(code)
        return code

    def check_rows(self, rows: Sequence[StackRow]) -> None:
        """Check each language once, before anything is read.

        Raises:
            DataError: naming the first row with an unknown code, and the nearest valid one.
        """
        for language, row in {row.language: row for row in reversed(rows)}.items():
            try:
                self.check(language)
            except ConfigError as error:
                raise DataError(f"{row.id}: {error}") from None

    def _known(self, code: str) -> None:
        if self.languages and code not in self.languages:
            near = _nearest(code, self.languages)
            raise ConfigError(
                f"language: '{code}' is no source language of this encoder's tokenizer (did you mean '{near}'?)"
            )

    def batch(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        max_length: int = 256,
    ) -> dict[str, Tensor]:
        """Tensors of a batch: `input_ids` and `attention_mask`, (B, T), padding right."""
        return self.pad(self.encode(texts, languages, pairs, max_length=max_length))

    def encode(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        *,
        max_length: int = 256,
        offsets: bool = False,
    ) -> list[Ids]:
        """Token ids of each text, cut at `max_length`; with `offset_mapping` where asked for."""
        found: list[Ids] = [{} for _ in texts]
        second = [None] * len(texts) if pairs is None else pairs
        groups: dict[tuple[str, bool], list[int]] = {}
        for place, (language, pair) in enumerate(zip(languages, second, strict=True)):
            groups.setdefault((self.check(language), pair is not None), []).append(place)
        for (code, paired), places in groups.items():
            if self.languages:
                self.tokenizer.src_lang = code
            encoded = self.tokenizer(
                [texts[place] for place in places],
                [str(second[place]) for place in places] if paired else None,
                truncation=True,
                max_length=max_length,
                return_offsets_mapping=offsets,
            )
            for number, place in enumerate(places):
                found[place] = {key: values[number] for key, values in encoded.items() if key != "token_type_ids"}
        return found

    def pad(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Rows of ids as tensors, padding right."""
        width, filler = max(len(row["input_ids"]) for row in rows), self.tokenizer.pad_token_id
        ids = torch.full((len(rows), width), int(filler or 0), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[place, : len(row["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def encode_rows(self, rows: Sequence[StackRow], *, max_length: int = 256) -> list[Ids]:
        """Rows of a task: their ids, and `choice_spans` of rows that have choices.

        Raises:
            ConfigError: choices need a fast tokenizer.
            DataError: a choice was cut off.
        """
        if not any(row.choices for row in rows):
            pairs = [row.pair for row in rows]
            return self.encode([row.text for row in rows], [row.language for row in rows], pairs, max_length=max_length)
        if not self.tokenizer.is_fast:
            raise ConfigError(f"choices need a fast tokenizer, and this {type(self.tokenizer).__name__} is none")
        written = [with_choices(row) for row in rows]
        texts, places = [text for text, _ in written], [spans for _, spans in written]
        encoded = self.encode(texts, [row.language for row in rows], max_length=max_length, offsets=True)
        for row, ids, spans in zip(rows, encoded, places, strict=True):
            columns = [token_span(ids["offset_mapping"], *span) for span in spans]
            if any(start == end for start, end in columns):
                raise DataError(f"{row.id}: a choice is cut off at max_length {max_length}; raise max_length")
            ids["choice_spans"] = [list(span) for span in columns]
            del ids["offset_mapping"]
        return encoded

    def collate(self, rows: Sequence[Ids]) -> dict[str, Tensor]:
        """Encoded rows as tensors, with `choice_spans` (B, C, 2); (0, 0) where a row has fewer choices."""
        batch = self.pad(rows)
        if any("choice_spans" in row for row in rows):
            most = max(len(row["choice_spans"]) for row in rows)
            spans = [row["choice_spans"] + [[0, 0]] * (most - len(row["choice_spans"])) for row in rows]
            batch["choice_spans"] = torch.tensor(spans)
        return batch


def language_codes(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The source languages that a translation tokenizer knows; empty for tokenizers without languages."""
    if not isinstance(getattr(type(tokenizer), "src_lang", None), property):
        return ()
    to_id = getattr(tokenizer, "lang_code_to_id", None)  # M2M100's; NLLB keeps them among its special tokens
    if to_id:
        return tuple(to_id)
    base = {tokenizer.special_tokens_map.get(key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return tuple(token for token in tokenizer.all_special_tokens if token not in base and token.isidentifier())


def _nearest(code: str, known: Sequence[str]) -> str:
    """The code that is most like an unknown one: by its beginning (`kaz_Latn` -> kaz_Cyrl), else by its letters."""
    begin = code.partition("_")[0].lower()
    same = [name for name in known if name.lower().partition("_")[0] == begin]
    if same:
        return same[0]
    return difflib.get_close_matches(code, known, n=1, cutoff=0.0)[0]


def with_choices(row: StackRow) -> tuple[str, list[tuple[int, int]]]:
    """The text of a row with its choices behind it, a line each, and the place of each choice in characters."""
    text, spans = row.text, []
    for number, choice in enumerate(row.choices, start=1):
        text += f"\n{number} "
        spans.append((len(text), len(text) + len(choice)))
        text += choice
    return text, spans


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The columns of the tokens that overlap characters `start` to `end`; (0, 0) when there are none."""
    inside = [column for column, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
