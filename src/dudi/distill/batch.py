"""Sequences of a micro-batch, what each of their tokens counts, and the parts that several teachers judge.

A completion is one list of ids, appended to whichever prompt reads it. The teacher's prompt is longer than the
student's, so that the two slices of hidden states start at different columns, and have the same length. A teacher with
another tokenizer reads the same bytes in its own tokens, and an alignment says where the two meet.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dudi.data.chat import Tokens
from dudi.data.examples import Example
from dudi.distill.teachers import Trust
from dudi.objective.heads import Head
from dudi.objective.shared_events import Alignment
from dudi.objective.signals import Kind, Signal
from dudi.objective.top_tokens import TopTokens


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """One sequence that is scored.

    Attributes:
        kind: `gold`, `plain` or `verbalized`.
        prompt: What the student reads.
        completion: The ids that are scored; none of a prompt that is not answered yet.
        teacher_prompt: What the teacher reads before the same ids.
        language: The language that the completion should be in.
        ended: Whether the completion has its end of turn.
        trained: First token of the completion that counts in a token signal.
        teacher_completion: The same bytes in the teacher's tokens; None where both share a tokenizer.
        alignment: Where the two can be compared, likewise.
        teacher: Who judges it, of several teachers; empty where there is no choice.
    """

    kind: Kind
    example: Example
    prompt: Tokens
    completion: Tokens
    teacher_prompt: Tokens
    language: str
    ended: bool = False
    trained: int = 0
    teacher_completion: Tokens | None = None
    alignment: Alignment | None = None
    teacher: str = ""

    @property
    def read_by_teacher(self) -> Tokens:
        """The completion in the teacher's tokens."""
        return self.completion if self.teacher_completion is None else self.teacher_completion

    def counted(self) -> Tensor:
        """(T,) fp32: 1 for each token of the completion that counts in a token signal, 0 for the others."""
        weight = torch.ones(len(self.completion))
        weight[: self.trained] = 0
        if self.alignment is not None:
            weight[torch.from_numpy(~self.alignment.used_tokens())] = 0
        return weight


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """What a teacher gave for some sequences.

    Attributes:
        states: By kind (N, H_t), its states for their completions, one after the other; of a served one what it named.
        head: Its head, cut to the common vocabulary where there is one; None of a served one.
    """

    states: dict[Kind, Tensor] | dict[Kind, TopTokens]
    head: Head | None


@dataclasses.dataclass(slots=True)
class MicroBatch:
    """The sequences of one forward pass.

    Attributes:
        per_sequence: Whether a token's weight is the inverse of its sequence's trained length.
        gold_reference: (B,) stored log-probabilities of the ground truth under the reference; None: not stored.
        watched: Places (kind's row numbers) at which overlap and entropies are measured.
        shares: What each token of a kind and a language counts in its signal's mean; 1 where nothing is said.
        balance: Factor on each language's divergence on rollouts; 1 where nothing is said.
        judged: What the teachers gave, by their names (empty where there is no choice), once they have read it.
    """

    sequences: dict[Kind, list[Scored]]
    per_sequence: bool = False
    gold_reference: Tensor | None = None
    watched: list[int] = dataclasses.field(default_factory=list)
    shares: Mapping[tuple[Kind, str], float] = dataclasses.field(default_factory=dict)
    trust: Trust = dataclasses.field(default_factory=Trust)
    balance: Mapping[str, float] = dataclasses.field(default_factory=dict)
    judged: dict[str, Judged] = dataclasses.field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """Rows of the micro-batch."""
        return max(len(scored) for scored in self.sequences.values())

    def lengths(self, kind: Kind) -> list[int]:
        """Of the completions."""
        return [len(scored.completion) for scored in self.sequences[kind]]

    def weights(self, kind: Kind) -> Tensor:
        """(N,) fp32 share of each completion token in its signal's mean."""
        parts = []
        for scored in self.sequences[kind]:
            weight = scored.counted()
            share = self.shares.get((kind, scored.language), 1.0)
            parts.append(weight / weight.sum().clamp_min(1) if self.per_sequence else weight * share)
        return torch.cat(parts)

    def trusted(self, kind: Kind) -> Tensor | None:
        """(N,) share of the teacher in each completion token, on rollouts times the balance; None: 1 everywhere."""
        balance = {} if kind == "gold" else self.balance
        own = [(one.language, one.teacher) for one in self.sequences[kind]]
        factors = [self.trust.of(language, teacher) * balance.get(language, 1.0) for language, teacher in own]
        if all(factor == 1.0 for factor in factors):
            return None
        return torch.repeat_interleave(torch.tensor(factors), torch.tensor(self.lengths(kind)))

    def summed_weights(self) -> dict[Kind, float]:
        """Each kind's part in its denominator."""
        return {kind: float(self.weights(kind).sum()) for kind in self.sequences}


@dataclasses.dataclass(frozen=True, slots=True)
class BatchPart:
    """What of a micro-batch is scored together: everything, or the sequences of one teacher.

    Attributes:
        signals: Those that read the sequences.
        teacher: Whose; None for signals that read none.
        places: Where its completion tokens are among those of the micro-batch, by kind; None: all of them.
    """

    batch: MicroBatch
    signals: Mapping[str, Signal]
    teacher: str | None
    places: dict[Kind, Tensor] | None = None


def parts_of(batch: MicroBatch, signals: Mapping[str, Signal], watched: Kind) -> list[BatchPart]:
    """A micro-batch cut by teacher, first what reads none; `batch.watched` counts the tokens of the kind `watched`."""
    untaught = {name: signal for name, signal in signals.items() if not signal.teacher_reads}
    parts = [BatchPart(dataclasses.replace(batch, watched=[]), untaught, None)] if untaught else []
    read = sorted({kind for signal in signals.values() for kind in signal.teacher_reads})
    for name in sorted({scored.teacher for kind in read for scored in batch.sequences[kind]}):
        places: dict[Kind, Tensor] = {}
        sequences: dict[Kind, list[Scored]] = {}
        for kind in read:
            own = torch.tensor([scored.teacher == name for scored in batch.sequences[kind]])
            found = torch.repeat_interleave(own, torch.tensor(batch.lengths(kind))).nonzero().squeeze(1)
            if len(found):
                places[kind] = found
                sequences[kind] = [scored for scored in batch.sequences[kind] if scored.teacher == name]
        mapped = {int(place): number for number, place in enumerate(places.get(watched, []))}
        seen = [mapped[place] for place in batch.watched if place in mapped]
        own_batch = dataclasses.replace(batch, sequences=sequences, gold_reference=None, watched=seen)
        taught = {one: signal for one, signal in signals.items() if signal.teacher_reads}
        reading = {one: signal for one, signal in taught.items() if signal.teacher_reads <= {*places}}
        parts.append(BatchPart(own_batch, reading, name, places))
    return parts


def event_counts(batches: Sequence[MicroBatch]) -> list[float]:
    """Across tokenizers: bytes used and all, places at which both sides go on with one event and all compared."""
    counts = [0.0] * 4
    for batch in batches:
        for scored in itertools.chain.from_iterable(batch.sequences.values()):
            if (found := scored.alignment) is not None:
                own = (found.used_bytes(), found.total, int((found.used & found.agreeing).sum()), int(found.used.sum()))
                counts = [total + count for total, count in zip(counts, own, strict=True)]
    return counts
