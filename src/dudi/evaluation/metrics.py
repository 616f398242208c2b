"""What a metric is called, in which unit it is shown, and which way is better."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

OVERALL = "overall"
ACCURACY, MACRO_F1 = "accuracy", "macro_f1"
STANDARD_ERROR = "the standard error over questions, of one seed"
"""What `±` is where there is one seed, and a benchmark that knows it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is read and shown.

    Attributes:
        name: Its key in the scores.
        title: What people call it.
        better: 1 where more is better, -1 where less is, 0 where neither is: nothing is marked then.
        scale: Shown values are this many times the stored ones: 100 for shares, which are shown in percent.
        digits: Decimals of a shown value.
        short: The heading of a narrow column; empty: the title.
    """

    name: str
    title: str
    better: int = 1
    scale: float = 1.0
    digits: int = 1
    short: str = ""

    @property
    def unit(self) -> str:
        """`%` for shares; empty for what has no unit, or the one that its name says."""
        return "%" if self.scale == 100 else ""

    @property
    def heading(self) -> str:
        """Over a narrow column."""
        return self.short or self.title

    def shown(self, values: Sequence[float]) -> tuple[str, str]:
        """Mean and standard deviation (n - 1) of values over seeds; a dash where there is none."""
        scaled = [self.scale * value for value in values]
        mean = f"{statistics.fmean(scaled):.{self.digits}f}" if scaled else "-"
        return mean, f"{statistics.stdev(scaled):.{self.digits}f}" if len(scaled) > 1 else "-"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("score", "Score"),
        Metric("exact_match", "Exact match in %", scale=100, short="exact, %"),
        Metric("acc", "Accuracy in %", scale=100, short="acc, %"),
        Metric("acc_norm", "Accuracy by length in %", scale=100, short="acc_norm, %"),
        Metric("chrf", "chrF"),
        Metric("chrf++", "chrF++"),
        Metric("token_f1", "Token F1 in %", scale=100, short="token F1, %"),
        Metric("in_language", "Answered in the language in %", scale=100, short="in language, %"),
        Metric("in_language_strict", "Answered in exactly the language in %", scale=100),
        Metric(ACCURACY, "Accuracy in %", scale=100, short="accuracy, %"),
        Metric(MACRO_F1, "Macro F1 in %", scale=100, short="macro F1, %"),
        Metric("bits_per_byte", "Bits per byte", better=-1, digits=3, short="bits per byte"),
        Metric("perplexity", "Perplexity", better=-1, digits=2),
        Metric("word_perplexity", "Perplexity of words", better=-1, digits=2),
        Metric("byte_perplexity", "Perplexity of bytes", better=-1, digits=3),
        Metric("repetition", "Repetition in %", better=-1, scale=100),
        Metric("ended", "Ended by itself in %", scale=100),
        Metric("empty", "Empty answers in %", better=-1, scale=100),
        Metric("seconds", "Seconds", better=-1),
        Metric("length", "Length", better=0),
    )
}
"""Those that have a unit or a direction of their own, and the order in which a default is looked for."""


def metric_of(name: str, better: object = None) -> Metric:
    """A metric by its name; `exact_match,strict-match` is exact match behind a filter of lm_eval's.

    Args:
        name: Its key in the scores.
        better: Of somebody else's metric: `Metric.better` by name, as a task says it. Where nobody has said which way
            is better, nothing is marked.
    """
    known, _, filtered = name.partition(",")
    if name in METRICS:
        return METRICS[name]
    if known in METRICS and filtered:
        metric = METRICS[known]
        ends = ((metric.title, " in %"), (metric.short, ", %"))
        title, short = (f"{text.removesuffix(end)} ({filtered}){end * text.endswith(end)}" for text, end in ends)
        return dataclasses.replace(metric, name=name, title=title, short=short if metric.short else "")
    told = better.get(name) if isinstance(better, Mapping) else None
    return Metric(name, name, better=told if told in (1, -1) else 0, digits=3)
