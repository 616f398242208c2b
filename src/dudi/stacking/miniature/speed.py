"""What reading a sentence costs with and without translating it, and how good the translations are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from sacrebleu.metrics import CHRF

from dudi.stacking import build_stack, evaluate, translate_rows, with_head
from dudi.stacking.miniature import models
from dudi.stacking.miniature.contest import Budget, tests
from dudi.stacking.miniature.places import OTHERS
from dudi.stacking.miniature.tasks import TASKS, was_in_parallel

ROUNDS = 3
PER_LANGUAGE = 16


def seconds_per_row(budget: Budget) -> dict[str, float]:
    """Wall time for one test row of `region`: translate-test (translate, then the LLM reads) and MT-LLM.

    Both in turn over the same rows, batches of 32, the median of three rounds. The models have not learned the task:
    what they answer costs nothing.
    """
    rows = [row for row in tests("region", budget) if row.language in OTHERS]
    rows = [row for code in OTHERS for row in [own for own in rows if own.language == code][:PER_LANGUAGE]]
    translator, reader = models.translator(), models.reader("bidirectional")
    stack = with_head(build_stack(translator, reader), TASKS["region"])
    alone = with_head(build_stack(None, reader), TASKS["region"])
    spent: dict[str, list[float]] = {"translate": [], "mtllm": []}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        options = {"num_beams": budget.beams, "max_new_tokens": 64}
        english = translate_rows(translator, models.source(), rows, "en", **options)
        evaluate(alone, models.reader_source(), english.rows)
        middle = time.perf_counter()
        evaluate(stack, models.source(), rows)
        spent["translate"].append(middle - started)
        spent["mtllm"].append(time.perf_counter() - middle)
    return {name: statistics.median(found) / len(rows) for name, found in spent.items()}


def translation_quality(english_of: Mapping[tuple[str, str], str], budget: Budget) -> dict[str, dict[str, float]]:
    """How well the translator does on the test sentences about countries of the parallel text.

    Returns:
        Language to `exact`, the share in percent that is word for word the English, and `chrf`.
    """
    found = {}
    for code in OTHERS:
        rows = [row for row in tests("region", budget) if row.language == code and was_in_parallel(row)]
        own, right = [english_of[code, row.text] for row in rows], [str(row.english) for row in rows]
        same = sum(one == other for one, other in zip(own, right, strict=True))
        found[code] = {"exact": 100 * same / len(rows), "chrf": CHRF().corpus_score(own, [right]).score}
    return found
