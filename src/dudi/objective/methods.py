"""The seven methods as data: Table 1 of the paper, and the weights of `docs/method.md`.

A method is a set of signals with their weights and defaults. Nothing else in the package asks for a method's name:
adding a method of this family is one more entry of `METHODS`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

MethodName = Literal["sft", "dft", "spin", "sdft", "seqkd", "gkd", "dudi", "gated"]
SignalName = Literal["sequence", "off_policy", "on_policy"]
SIGNALS: tuple[SignalName, ...] = ("sequence", "off_policy", "on_policy")
TeacherKind = Literal["none", "model", "ema"]
Divergence = Literal["forward_kl", "reverse_kl", "jsd"]
OffPolicyLoss = Literal["divergence", "cross_entropy", "dft"]
VerbalizerMode = Literal["none", "english", "multilingual", "cross_lingual", "mix"]
CHOOSING: tuple[VerbalizerMode, ...] = ("cross_lingual", "mix")
"""Verbalizers that choose the language to answer in."""
Kernel = Literal["auto", "dense", "chunked", "fused"]
"""How a head is applied (`objective/heads.py`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One row of Table 1.

    Attributes:
        source: The paper that the method comes from.
        teacher: Who gives the token signals: nobody, a second model, or the student's moving average.
        iterated: Whether the reference and the writer of rollouts are replaced at each iteration (SPIN).
        defaults: The method's own values of `DudiConfig` keys; a key that the user sets wins. What the method does not
            name has the value that its key declares for all methods (`common`, `distill/keys.py`).
    """

    name: MethodName
    title: str
    source: str
    signals: frozenset[SignalName]
    teacher: TeacherKind = "none"
    iterated: bool = False
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)


_DUDI = {"alpha": 0.1, "lmbda": 0.5, "divergence": "reverse_kl", "verbalizer": "cross_lingual"}

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
            defaults={"lmbda": 1.0, "divergence": "forward_kl", "verbalizer": "english", "skip_completion_tokens": 3},
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
            defaults=_DUDI,
        ),
        Method(
            name="gated",
            title="dudi with a share of the teacher in each language (`teacher_weight`)",
            source="docs/method.md, When the teacher is weak",
            signals=frozenset({"sequence", "off_policy", "on_policy"}),
            teacher="model",
            defaults={
                **_DUDI,
                "teacher_weight": "auto",
                "gold_loss": "dft",
                "loss_average": "language",
                "language_balance": True,
                "verbalizer_targets": "teacher",
            },
        ),
    )
}
