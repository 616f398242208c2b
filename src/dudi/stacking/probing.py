"""How near the stack comes to its LLM in languages that the LLM cannot read, measured without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dudi.errors import DataError
from dudi.models.frozen import evaluating
from dudi.stacking.modeling import MTLLMModel
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import SHORTENED, Source, read_inputs


def probe(
    model: MTLLMModel,
    source: Source,
    llm_source: Source,
    rows: Sequence[StackRow],
    *,
    teacher: MTLLMModel | None = None,
    batch_size: int = 32,
    max_length: int = 256,
) -> dict[str, dict[str, float]]:
    """Hold the stack's vector of a text against the LLM's vector of its English.

    The LLM reads with its adapter off: before the adapter is merged that is Stage 1's teacher. Afterwards the weights
    no longer hold it, and it has to be given.

    Args:
        model: Encoder and LLM.
        source: The encoder's tokenizer.
        llm_source: The LLM's.
        rows: Texts with `english`.
        teacher: Whose LLM reads the English; None: the model's own.
        batch_size: Rows at a time.
        max_length: Tokens of a text that are read.

    Returns:
        For each language `n`, `fvu` (summed squared error over the teacher's variance within the language: 0 is
        perfect, 1 is as good as the mean), `cosine` (mean), and `shortened`: texts that either side read without its
        end.

    Raises:
        DataError: a row has no English.
    """
    for row in rows:
        if row.english is None:
            raise DataError(f"{row.name}: the probe needs the row's English")
    reference = model if teacher is None else teacher
    taught, read, shortened = [], [], Counter[str]()
    for begin in range(0, len(rows), batch_size):
        part = rows[begin : begin + batch_size]
        english = llm_source.encode([str(row.english) for row in part], [""] * len(part), max_length=max_length)
        alone = [StackRow(row.text, row.language) for row in part]
        texts = source.encode_rows(alone, max_length=max_length)
        cut = [SHORTENED in own or SHORTENED in given for own, given in zip(english, texts, strict=True)]
        shortened.update(row.language for row, one in zip(part, cut, strict=True) if one)
        own = {key: value.to(reference.device) for key, value in llm_source.pad(english).items()}
        given = {key: value.to(model.device) for key, value in read_inputs(source.collate(texts)).items()}
        with evaluating(reference), reference.without_lora():
            taught.append(reference.read_tokens(**own).vectors.cpu())
        with evaluating(model):
            read.append(model(**given).vectors.cpu())
    found = by_language([row.language for row in rows], torch.cat(read), torch.cat(taught))
    return {code: values | {"shortened": float(shortened[code])} for code, values in found.items()}


def by_language(languages: Sequence[str], read: Tensor, taught: Tensor) -> dict[str, dict[str, float]]:
    """FVU and cosine of (N, D) against (N, D) in each language, in the order in which they come."""
    found = {}
    for code in dict.fromkeys(languages):
        chosen = torch.tensor([language == code for language in languages])
        mine, goal = read[chosen].double(), taught[chosen].double()
        variance = (goal - goal.mean(dim=0)).square().sum()
        found[code] = {
            "n": float(len(goal)),
            "fvu": float((mine - goal).square().sum() / variance.clamp(min=1e-12)),
            "cosine": float(nn.functional.cosine_similarity(mine, goal, dim=-1).mean()),
        }
    return found
