"""Do teacher and student speak the same token ids?"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_PROBE = "Apa kabar? Xin chào! สวัสดีครับ வணக்கம் Kumusta, selamat pagi မင်္ဂလာပါ 12,345.67 €\n\tend"


def vocabulary_difference(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, student_size: int, teacher_size: int
) -> str | None:
    """What tells two tokenizers apart, in a sentence; None where both give all shared ids the same meaning.

    Models of one family pad their embeddings differently (Qwen2.5: 151936 up to 3B, 152064 above), so equal sizes (rows
    of the heads) are not needed, and prove nothing: the ids of every token are compared.
    """
    shared = min(student_size, teacher_size)
    ours, theirs = _by_id(student, shared), _by_id(teacher, shared)
    known = ours.keys() & theirs.keys()
    different = [i for i in sorted(known) if ours[i] != theirs[i]]
    if different:
        shown = ", ".join(f"{i}: {ours[i]!r} / {theirs[i]!r}" for i in different[:3]) + " (student / teacher)"
        return f"student and teacher have different tokenizers: {len(different)} ids differ, from {shown}"
    lone = sorted(ours.keys() ^ theirs.keys())
    if len(lone) > max(64, len(known) // 100):
        return f"student and teacher have different tokenizers: {len(lone)} ids exist in one alone, from {lone[:3]}"
    own, other = student.get_vocab(), teacher.get_vocab()
    for token in sorted({*student.all_special_tokens, *teacher.all_special_tokens} & own.keys() & other.keys()):
        if own[token] != other[token]:
            ids = f"{own[token]} / {other[token]}"
            return f"student and teacher give the special token {token!r} different ids: {ids}"
    if student(_PROBE, add_special_tokens=False)["input_ids"] != teacher(_PROBE, add_special_tokens=False)["input_ids"]:
        return "student and teacher have the same token ids but split text differently (merges or normalisation)"
    return None


def _by_id(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items() if index < size}
