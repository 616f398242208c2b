"""Tokenised examples: rows as ids, cut to the student's length."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from torch.utils.data import Dataset

from dudi.data.chat import ChatFormat
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError
from dudi.errors import DataError

SMALLEST_COMPLETION = 16
"""A prompt longer than `max_length` less this is rejected: nothing worth training would be left."""

Ids = np.ndarray
"""(T,) int32."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A row as token ids.

    Attributes:
        row: Its text, which the verbalizer needs.
        prompt: The student's prompt x.
        teacher_prompt: x in the teacher's template; the student's where there is no teacher.
        completion: The target y: tokenised once, appended to whichever prompt.
        ended: Whether the completion has its end of turn (a cut one has not).
    """

    row: Row
    prompt: Ids
    teacher_prompt: Ids
    completion: Ids
    ended: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ExampleSet:
    """The examples of a dataset.

    Attributes:
        examples: In row order.
        truncated: Rows per language whose completion was cut.
        digest: Hash of all ids; the reference's stored log-probabilities are keyed by it.
    """

    examples: list[Example]
    truncated: dict[str, int]
    digest: str


@dataclasses.dataclass(eq=False, repr=False)
class ListedExamples(Dataset[Example]):
    """Examples as the map-style dataset that `Trainer` reads."""

    examples: list[Example]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def tokenise(
    rows: Iterable[Row],
    student: ChatFormat,
    teacher: ChatFormat | None,
    max_length: int,
    rejections: Rejections,
    others: Sequence[ChatFormat] = (),
) -> ExampleSet:
    """Turn rows into examples.

    A completion that passes `max_length` is cut on the right between two tokens, loses its end of turn and is counted.
    Prompts are never cut: one that is longer than `max_length - 16` is rejected and counted. So is a row whose text
    holds one of the models' special tokens, which would end a turn or open another where nobody meant to, and one whose
    prompt is impossible in a teacher's template: in that of `teacher`, or of the further ones in `others`.

    Raises:
        DataError: no row is left.
    """
    examples: list[Example] = []
    truncated: Counter[str] = Counter()
    formats = [student, *([] if teacher is None else [teacher]), *others]
    seen = too_long = 0
    for row in rows:
        seen += 1
        texts = [message["content"] for message in row.messages]
        found = next((token for chat in formats for text in texts for token in chat.special.findall(text)), None)
        try:
            if found is not None:  # the tokenizer would take it for its own
                raise RowError("special_token", f"its text holds {found!r}, a special token of the model")
            prompt, *prompts = [chat.prompt_ids(row.prompt) for chat in formats]
            teacher_prompt = prompt if teacher is None else prompts[0]
            if len(prompt) > max_length - SMALLEST_COMPLETION:
                too_long += 1
                raise RowError("prompt_too_long", f"{len(prompt)} tokens")
        except RowError as error:
            place, excerpt = row.file or row.id, row.prompt[-1]["content"]
            rejections.add(
                error.reason, where=place, line=row.line, row_id=row.id, detail=error.detail, excerpt=excerpt
            )
            continue
        completion = student.answer_ids(row.completion)
        room = max_length - len(prompt)
        ended = len(completion) <= room
        if not ended:
            truncated[row.language] += 1
        examples.append(Example(row, _ids(prompt), _ids(teacher_prompt), _ids(completion[:room]), ended))
    if examples:
        return ExampleSet(examples, dict(truncated), digest_of(examples))
    if not seen:
        raise DataError("the dataset has no rows")
    why = ", ".join(f"{count:,} {reason}" for reason, count in rejections.counts.most_common(4))
    if too_long == seen:
        limit = f"max_length - {SMALLEST_COMPLETION} = {max_length - SMALLEST_COMPLETION}"
        why = f"every prompt passes {limit} tokens; raise max_length"
    raise DataError(f"no row is left of {seen}: {why}")


def digest_of(examples: Sequence[Example]) -> str:
    """Hash of the ids of all examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.row.id.encode("utf-8", "surrogatepass"))
        for ids in (example.prompt, example.teacher_prompt, example.completion):
            digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    return digest.hexdigest()


def _ids(tokens: Sequence[int]) -> Ids:
    return np.asarray(tokens, dtype=np.int32)


def with_completion(example: Example, ids: Sequence[int], ended: bool, max_length: int) -> Example:
    """The example with another target, cut to the student's length."""
    room = max_length - len(example.prompt)
    return dataclasses.replace(example, completion=_ids(ids[:room]), ended=ended and len(ids) <= room)
