"""Several teachers: who judges which completion, and how far a teacher is trusted in a language.

A completion is judged by the teacher that its row names, else by that of the language that it should be in, else by the
default one. All of them share each signal's denominator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.chat import ChatFormat, Tokens
from dudi.data.examples import Example
from dudi.data.rows import Row
from dudi.distill.served import ServedTeacher
from dudi.distill.teacher_keys import DEFAULT
from dudi.errors import ConfigError, did_you_mean
from dudi.objective.event_loss import EventLoss

NOT_ASKED = 0.5
"""The share in a language that no row of a probe is in: sigmoid(q / tau) where nothing is known, q = 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Teacher:
    """A second model, as the student's completions reach it.

    Attributes:
        name: The keys that it was given under: `default`, `my+ta`.
        model: The model, frozen; or the one that a server holds.
        chat: How it reads a conversation.
        own_tokens: Whether its tokenizer is its own: its answers are then taken over as text.
        events: The loss across tokenizers, where they differ and a divergence is read; else None.
    """

    name: str
    model: PreTrainedModel | ServedTeacher
    chat: ChatFormat
    own_tokens: bool = False
    events: EventLoss | None = None


@dataclasses.dataclass(slots=True)
class Teachers:
    """The second models of a run.

    Attributes:
        members: By name, the default one in front; empty where there is no second model.
        routes: The member of each key: a language, the value of a row's `teacher`, or `default`.
        chosen: The member of each language as a probe found it (`teacher_route: auto`); it wins over `routes`.
    """

    members: dict[str, Teacher]
    routes: dict[str, str] = dataclasses.field(default_factory=dict)
    chosen: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self.members) > 1

    @property
    def local(self) -> dict[str, PreTrainedModel]:
        """Those that are computed here, by name; one may have adapters."""
        return {name: one.model for name, one in self.members.items() if not isinstance(one.model, ServedTeacher)}

    @property
    def served(self) -> dict[str, ServedTeacher]:
        """Those that servers hold, by the names that sequences give them: the empty one where there is no choice."""
        names = {name: name if self.several else "" for name in self.members}
        models = self.members.items()
        return {names[name]: one.model for name, one in models if isinstance(one.model, ServedTeacher)}

    @property
    def main(self) -> Teacher | None:
        """Who judges whatever nobody else is named for; None without a second model."""
        return next(iter(self.members.values()), None)

    def named(self, name: str) -> Teacher | None:
        """The one of a sequence's `teacher`; the empty name is the main one's, where there is no choice."""
        return self.members[name] if name else self.main

    def by_key(self) -> tuple[dict[str, PreTrainedModel | ServedTeacher], dict[str, PreTrainedTokenizerBase]]:
        """The models and their tokenizers as they were given."""
        names = self.routes or {name: name for name in self.members}
        members = {key: self.members[name] for key, name in names.items()}
        tokenizers = {key: one.chat.tokenizer for key, one in members.items()}
        return {key: one.model for key, one in members.items()}, tokenizers

    def of(self, row: Row, language: str) -> Teacher | None:
        """Who judges a completion of a row that should be in a language."""
        if not self.several:
            return self.main
        if row.teacher is not None and row.teacher in self.routes:
            return self.members[self.routes[row.teacher]]
        name = self.chosen.get(language) or self.routes.get(language) or self.routes.get(DEFAULT)
        return self.main if name is None else self.members[name]

    def prompt(self, teacher: Teacher | None, example: Example) -> Tokens:
        """X as a teacher reads it; the example holds it in the default one's template."""
        if teacher is None or teacher is self.main:
            return example.teacher_prompt
        return teacher.chat.prompt_ids(example.row.prompt)

    def check(self, examples: Iterable[Example], targets: Sequence[str], known: Sequence[str]) -> None:
        """Hold the keys against all rows, the languages of rollouts beside the rows' own, and all known languages.

        Raises:
            ConfigError: a key that is neither a language nor in any row, or a language without a teacher.
        """
        rows = [example.row for example in examples]
        named = {row.teacher for row in rows if row.teacher is not None}
        for key in self.routes:
            if key != DEFAULT and key not in known and key not in named:
                hint = did_you_mean(key, [*known, *sorted(named), DEFAULT])
                raise ConfigError(
                    f"teachers: '{key}' is neither a language nor the `teacher` of any row nor `{DEFAULT}`{hint}"
                )
        if not self.routes or DEFAULT in self.routes:
            return
        asked = [(row.teacher, language) for row in rows for language in (row.language, *targets)]
        alone = {language for name, language in asked if name not in self.routes and language not in self.routes}
        if alone:
            raise ConfigError(f"teachers: there is none for {', '.join(sorted(alone))}: name it, or a `{DEFAULT}`")


@dataclasses.dataclass(frozen=True, slots=True)
class Trust:
    """The share of the teacher in each language.

    Attributes:
        by_language: Where it was given or found.
        elsewhere: In the other languages, and in rows without one.
        by_teacher: By language, that of each of several teachers, where a probe has asked all of them.
    """

    by_language: Mapping[str, float] = dataclasses.field(default_factory=dict)
    elsewhere: float = 1.0
    by_teacher: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def of(self, language: str, teacher: str = "") -> float:
        """The share in a completion that should be in a language, judged by a teacher, or by whoever is asked there."""
        own = self.by_teacher.get(language, {}).get(teacher)
        return self.by_language.get(language, self.elsewhere) if own is None else own


def found_trust(found: Mapping[str, Mapping[str, Any]]) -> Trust:
    """What a probe found (`probe.weigh`, `probe.best_of`)."""
    return Trust(
        {language: float(one["weight"]) for language, one in found.items()},
        NOT_ASKED,
        {language: one["weights"] for language, one in found.items() if "weights" in one},
    )
