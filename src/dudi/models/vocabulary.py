"""Do teacher and student speak the same token ids?"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from dudi.errors import ConfigError

_PROBE = "Apa kabar? Xin chào! สวัสดีครับ வணக்கம் Kumusta, selamat pagi မင်္ဂလာပါ 12,345.67 €\n\tend"


def shared_vocabulary(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, student_size: int, teacher_size: int
) -> int:
    """The number of first ids that both models give the same meaning.

    Models of one family pad their embeddings differently (Qwen2.5: 151936 up to 3B, 152064 above), so equal sizes are
    not needed, and equal sizes prove nothing: the ids of every token are compared.

    Args:
        student: Tokenizer of the student.
        teacher: Tokenizer of the teacher.
        student_size: Rows of the student's head.
        teacher_size: Rows of the teacher's head.

    Returns:
        The smaller of the two sizes.

    Raises:
        ConfigError: the tokenizers differ; the message names the first ids that do.
    """
    shared = min(student_size, teacher_size)
    ours, theirs = _by_id(student, shared), _by_id(teacher, shared)
    different = [i for i in sorted(ours.keys() & theirs.keys()) if ours[i] != theirs[i]]
    if different:
        shown = ", ".join(f"{i}: {ours[i]!r} / {theirs[i]!r}" for i in different[:3])
        raise ConfigError(
            f"student and teacher have different tokenizers: {len(different)} ids differ, from {shown} (student / "
            "teacher). Distillation on logits needs one vocabulary: choose a teacher of the student's family"
        )
    lone = sorted(ours.keys() ^ theirs.keys())
    known = len(ours.keys() & theirs.keys())
    if len(lone) > max(64, known // 100):
        raise ConfigError(
            f"student and teacher have different tokenizers: {len(lone)} ids exist in one alone, from {lone[:3]}; "
            "choose a teacher of the student's family"
        )
    _check_specials(student, teacher)
    if student(_PROBE, add_special_tokens=False)["input_ids"] != teacher(_PROBE, add_special_tokens=False)["input_ids"]:
        raise ConfigError(
            "student and teacher have the same token ids but split text differently (merges or normalisation); "
            "choose a teacher of the student's family"
        )
    return shared


def _by_id(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items() if index < size}


def _check_specials(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    for token in sorted({*student.all_special_tokens, *teacher.all_special_tokens}):
        if token in ours and token in theirs and ours[token] != theirs[token]:
            raise ConfigError(
                f"student and teacher give the special token {token!r} different ids: {ours[token]} / {theirs[token]}"
            )
