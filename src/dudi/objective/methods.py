"""The seven methods as data: Table 1 of the paper, and the weights of `docs/method.md`.

A method is a set of signals with their weights and defaults. Nothing else in the package asks for a method's name:
adding a method of this family is one more entry of `METHODS`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

SignalName = Literal["sequence", "off_policy", "on_policy"]
TeacherKind = Literal["none", "model", "ema"]


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One row of Table 1.

    Attributes:
        name: What `method=` takes.
        title: One line for people.
        source: The paper that the method comes from.
        signals: The signals that the method has; a signal that it lacks ignores its weight.
        teacher: Who gives the token signals: nobody, a second model, or the student's moving average.
        iterated: Whether the reference and the writer of rollouts are replaced at each iteration (SPIN).
        defaults: The method's own values of `DudiConfig` keys; a key that the user sets wins.
    """

    name: str
    title: str
    source: str
    signals: frozenset[SignalName]
    teacher: TeacherKind = "none"
    iterated: bool = False
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)


COMMON: dict[str, Any] = {
    "alpha": 0.0,
    "lmbda": 0.0,
    "off_policy_loss": None,
    "divergence": "reverse_kl",
    "verbalizer": "none",
    "targets": "gold",
    "mixing": "sum",
    "cold_start": "sft",
    "loss_average": "token",
    "spin_beta": 0.1,
    "skip_completion_tokens": 0,
}
"""What holds for a method that says nothing else."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="sft",
            title="supervised fine-tuning: cross-entropy on the ground truth",
            source="Eq. 1, w = 1",
            signals=frozenset({"off_policy"}),
            defaults={"off_policy_loss": "cross_entropy", "cold_start": "none"},
        ),
        Method(
            name="dft",
            title="dynamic fine-tuning: each token's cross-entropy weighted by its own probability",
            source="Wu et al. 2026; Eq. 1, w = sg(pi(y_t))",
            signals=frozenset({"off_policy"}),
            defaults={"off_policy_loss": "dft", "cold_start": "none"},
        ),
        Method(
            name="spin",
            title="self-play fine-tuning against the previous iterate",
            source="Chen et al. 2024; Eq. 2",
            signals=frozenset({"sequence"}),
            iterated=True,
            defaults={"alpha": 1.0},
        ),
        Method(
            name="sdft",
            title="self-distillation from the student's moving average, which sees the ground truth",
            source="Shenfeld et al. 2026; Eq. 3",
            signals=frozenset({"on_policy"}),
            teacher="ema",
            defaults={
                "lmbda": 1.0,
                "divergence": "forward_kl",
                "verbalizer": "english",
                "skip_completion_tokens": 3,
            },
        ),
        Method(
            name="seqkd",
            title="distillation on answers that the teacher wrote once",
            source="Kim and Rush 2016; Eq. 4",
            signals=frozenset({"off_policy"}),
            teacher="model",
            defaults={"targets": "teacher", "divergence": "jsd"},
        ),
        Method(
            name="gkd",
            title="generalized distillation: ground truth and the student's own answers",
            source="Agarwal et al. 2024; Eq. 4",
            signals=frozenset({"off_policy", "on_policy"}),
            teacher="model",
            defaults={"lmbda": 0.5, "divergence": "jsd", "mixing": "sample"},
        ),
        Method(
            name="dudi",
            title="dual-signal distillation with a cross-lingual verbalizer",
            source="arXiv 2606.04694; Eq. 8",
            signals=frozenset({"sequence", "off_policy", "on_policy"}),
            teacher="model",
            defaults={"alpha": 0.1, "lmbda": 0.5, "divergence": "reverse_kl", "verbalizer": "cross_lingual"},
        ),
    )
}

METHOD_KEYS: frozenset[str] = frozenset(COMMON)
"""The keys whose default depends on the method; None in `DudiConfig` means 'the method's own'."""


def method_default(method: str, key: str) -> Any:
    """The value that `method` gives to `key` when the user does not.

    Args:
        method: A key of `METHODS`.
        key: A member of `METHOD_KEYS`.

    Returns:
        The default; `off_policy_loss` falls back to the method's divergence, since D of Eqs. 4-8 is one function.
    """
    defaults = METHODS[method].defaults
    value = defaults.get(key, COMMON[key])
    if key == "off_policy_loss" and value is None:
        return "divergence"
    return value
