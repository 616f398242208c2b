"""Answers that are written: as token ids, as what a stack learns, and as what it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import chat_format, plain_format
from dudi.data.rows import RowError
from dudi.errors import ConfigError
from dudi.models.frozen import evaluating
from dudi.models.limits import check_length
from dudi.stacking.arguments import StackArguments
from dudi.stacking.checks import check_reading
from dudi.stacking.generating import NO_LABEL, MTLLMForCausalLM
from dudi.stacking.rows import StackRow, Task
from dudi.stacking.tokens import OWN, SHORTENED, Source, of_like_length, read_inputs
from dudi.stacking.trainer import Batch, Objective, Sums

PROMPT = ("prompt_ids", "prompt_attention_mask", "labels")
"""What a stack that writes reads of a batch, beside what every stack reads."""


class AnswerWording:
    """How an LLM is asked, and where its answers end: in its chat template where it has one, else as plain text.

    Raises:
        ConfigError: its chat template cannot be used, or it has neither a template nor an end-of-text token.
        DataError: its chat template fails.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.templated = tokenizer, bool(tokenizer.chat_template)
        self.format = chat_format(tokenizer, {}, "llm") if self.templated else plain_format(tokenizer)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of a prompt up to where the answer begins; of plain text as it stands, with no special token."""
        if not self.templated:
            return list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        try:
            return self.format.prompt_ids([{"role": "user", "content": prompt}])
        except RowError as error:
            raise ConfigError(f"prompt: {error.detail}") from error

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """Ids of an answer behind a prompt, its end included; in plain text a blank stands between the two."""
        if self.templated or not prompt:
            return self.format.answer_ids(answer)
        asked = self.prompt_ids(prompt)
        both = list(self.tokenizer(f"{prompt} {answer}", add_special_tokens=False)["input_ids"])
        if both[: len(asked)] != asked:  # the seam is inside of a token
            return self.format.answer_ids(answer)
        return [*both[len(asked) :], self.format.end_of_turn]

    def batch(self, prompt: str, answers: Sequence[str | None], *, max_length: int) -> tuple[Batch, list[bool]]:
        """A prompt and answers behind it, padding right, and which answers were longer than `max_length` tokens.

        Returns:
            `prompt_ids`, `prompt_attention_mask` and `labels`, (B, P); an answer that is None is the prompt alone.
        """
        asked = self.prompt_ids(prompt)
        ends = [[] if answer is None else self.answer_ids(prompt, answer) for answer in answers]
        rows = [torch.tensor([*asked, *end[:max_length]], dtype=torch.long) for end in ends]
        ids = pad_sequence(rows, batch_first=True, padding_value=int(self.tokenizer.pad_token_id or 0))
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        labels = pad_sequence(rows, batch_first=True, padding_value=NO_LABEL)
        labels[:, : len(asked)] = NO_LABEL
        return dict(zip(PROMPT, (ids, mask, labels), strict=True)), [len(end) > max_length for end in ends]

    def text(self, ids: Sequence[int]) -> str:
        """What was written, up to where the answer ends."""
        stop = next((place for place, token in enumerate(ids) if token in self.format.stop_ids), len(ids))
        return self.format.text(ids[:stop]).strip()


class WritingLoss(Objective):
    """Cross-entropy of written answers, each token of which counts alike; the task's prompt stands in front of them."""

    stage = "finetune"

    def __init__(
        self, source: Source, task: Task, args: StackArguments, llm_tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(source, args, llm_tokenizer)
        self.task, self.wording = task, AnswerWording(llm_tokenizer)

    @property
    def longest(self) -> int:
        """Tokens that the LLM reads at most: a text once or twice, the boundary, the prompt, an answer."""
        texts = 1 if self.source.beside is None else 2
        return (texts + 1) * self.args.max_length + 1 + len(self.wording.prompt_ids(self.task.prompt))

    def collate(self, rows: Sequence[StackRow], places: Sequence[int]) -> Batch:
        """Texts, prompts and answers."""
        batch = self.source.collate(self.source.encode_rows(rows, max_length=self.args.max_length))
        answers = [row.answer for row in rows]
        asked, long = self.wording.batch(self.task.prompt, answers, max_length=self.args.max_length)
        return batch | asked | {SHORTENED: torch.maximum(batch[SHORTENED], torch.tensor(long).long())}

    def count(self, batch: Batch) -> float:
        """Tokens of answers."""
        return float((batch["labels"] != NO_LABEL).sum())

    def loss(self, model: nn.Module, inner: Any, batch: Batch) -> tuple[Tensor, Sums]:
        """Summed over the answers' tokens, in nats."""
        out = model(**read_inputs(batch), **{key: batch[key] for key in PROMPT})
        total = nn.functional.cross_entropy(out.logits, out.targets, reduction="sum")
        return total, {"loss": total, "right": (out.logits.argmax(dim=-1) == out.targets).sum()}


def write(
    model: MTLLMForCausalLM,
    source: Source,
    llm_tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[StackRow],
    prompt: str,
    *,
    batch_size: int = 32,
    max_length: int = 256,
    max_new_tokens: int = 64,
    shortened: Counter[str] | None = None,
    **options: Any,
) -> list[str]:
    """Ask a stack about rows, each read in its own language; what it writes, in the order of the rows.

    Args:
        model: That writes.
        source: The encoder's tokenizer.
        llm_tokenizer: The LLM's.
        rows: The rows.
        prompt: What is asked about each.
        batch_size: Rows at a time, of similar length.
        max_length: Tokens of a row that are read.
        max_new_tokens: Longest answer.
        shortened: Counts rows of each language that were longer than `max_length`.
        options: More of what `generate` of `transformers` takes.

    Raises:
        ConfigError: the chat template refuses the prompt; the LLM cannot write, or has no positions for as many tokens.
        DataError: a language code is unknown.
    """
    source.check_rows(rows)
    check_reading(model.reader, source, max_length)
    wording, llm = AnswerWording(llm_tokenizer), cast(PreTrainedModel, model.reader.llm)
    encoded = source.encode_rows(rows, max_length=max_length)
    if shortened is not None:
        shortened.update(row.language for row, ids in zip(rows, encoded, strict=True) if SHORTENED in ids)
    longest = max(len(ids["input_ids"]) + len(ids.get(f"{OWN}input_ids", ())) for ids in encoded) + 1
    longest += len(wording.prompt_ids(prompt)) + max_new_tokens
    check_length(llm, longest, type(llm).__name__, "max_new_tokens, behind text and prompt,")
    written = [""] * len(rows)
    ends = {"eos_token_id": list(wording.format.stop_ids), "pad_token_id": llm_tokenizer.pad_token_id}
    for places in of_like_length(encoded, batch_size):
        asked, _ = wording.batch(prompt, [None] * len(places), max_length=max_length)
        batch = read_inputs(source.collate([encoded[place] for place in places])) | asked
        inputs = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
        with evaluating(model):
            found = model.generate(**inputs, max_new_tokens=max_new_tokens, **ends, **options)
        for place, ids in zip(places, found.tolist(), strict=True):
            written[place] = wording.text(ids)
    return written
