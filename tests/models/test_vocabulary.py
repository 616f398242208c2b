"""Teacher and student must mean the same by an id; padding of an embedding means nothing."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from dudi.models.vocabulary import vocabulary_difference
from helpers import SPECIALS, make_tokenizer


def edited(change):
    """The tests' tokenizer, its `tokenizer.json` changed by `change`."""
    described = json.loads(make_tokenizer().backend_tokenizer.to_str())
    change(described)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        eos_token=SPECIALS[0],
        pad_token=SPECIALS[0],
        additional_special_tokens=SPECIALS[1:],
    )


def refusal(student, teacher, student_size=448, teacher_size=448):
    message = vocabulary_difference(student, teacher, student_size, teacher_size)
    assert message is not None and "\n" not in message
    return message


def test_equal_tokenizers(tokenizer):
    assert vocabulary_difference(tokenizer, make_tokenizer(), 448, 448) is None


def test_an_edit_that_changes_nothing_is_accepted(tokenizer):
    """So that the refusals below are due to their edits."""
    assert vocabulary_difference(tokenizer, edited(lambda described: None), 448, 448) is None


@pytest.mark.parametrize(("student_size", "teacher_size"), [(151936, 152064), (152064, 151936)])
def test_sizes_that_differ_by_padding_are_no_difference(tokenizer, student_size, teacher_size):
    assert vocabulary_difference(tokenizer, make_tokenizer(), student_size, teacher_size) is None


def test_a_chat_template_and_a_pad_token_of_ones_own_do_no_harm(tokenizer):
    other = make_tokenizer(template=None)
    other.pad_token = SPECIALS[2]
    assert vocabulary_difference(tokenizer, other, 448, 448) is None


def test_one_changed_id_is_named(tokenizer):
    names = {index: token for token, index in tokenizer.get_vocab().items()}

    def swap(described):
        vocabulary = described["model"]["vocab"]
        vocabulary[names[300]], vocabulary[names[301]] = 301, 300

    message = refusal(tokenizer, edited(swap))
    assert f"2 ids differ, from 300: {names[300]!r} / {names[301]!r}" in message


def test_ids_beyond_the_shared_size_do_not_matter(tokenizer):
    names = {index: token for token, index in tokenizer.get_vocab().items()}

    def swap(described):
        vocabulary = described["model"]["vocab"]
        vocabulary[names[418]], vocabulary[names[419]] = 419, 418

    other = edited(swap)
    assert refusal(tokenizer, other, 448, 420).startswith("student and teacher have different tokenizers: 2 ids differ")
    # A head that ends before them; the ids that are compared agree.
    assert "ids differ" not in refusal_or_none(tokenizer, other, 418)


def refusal_or_none(student, teacher, size):
    return vocabulary_difference(student, teacher, size, size) or ""


def test_another_family_is_refused(tokenizer):
    other = make_tokenizer(texts=["the quick brown fox jumps over the lazy dog " * 3, "pack my box with liquor jugs"])
    message = refusal(tokenizer, other)
    assert "ids differ, from " in message


def test_special_tokens_in_another_order_are_refused(tokenizer):
    message = refusal(tokenizer, make_tokenizer(specials=[SPECIALS[0], SPECIALS[2], SPECIALS[1]]))
    assert "1: '<|im_start|>' / '<|im_end|>'" in message


def test_a_special_token_under_two_ids_is_refused():
    """Each id exists in one tokenizer alone, so that comparing id by id finds nothing."""
    student, teacher = make_tokenizer(), make_tokenizer()
    student.add_special_tokens({"additional_special_tokens": [*SPECIALS[1:], "<|turn|>"]})
    size = len(teacher)
    teacher.add_tokens(["filler"])
    teacher.add_special_tokens({"additional_special_tokens": [*SPECIALS[1:], "<|turn|>"]})
    assert student.get_vocab()["<|turn|>"] == size and teacher.get_vocab()["<|turn|>"] == size + 1
    refusal(student, teacher)
    # With the id of `filler` free in the teacher, only the comparison of special tokens can tell.
    lonely = make_tokenizer()
    lonely.get_vocab = lambda: {**make_tokenizer().get_vocab(), "<|turn|>": size + 1}
    assert refusal(student, lonely) == (
        f"student and teacher give the special token '<|turn|>' different ids: {size} / {size + 1}"
    )


def test_a_few_tokens_that_one_of_them_has_alone_are_accepted(tokenizer):
    teacher = make_tokenizer()
    teacher.add_tokens([f"<extra-{i}>" for i in range(20)])
    assert vocabulary_difference(tokenizer, teacher, 448, 448) is None
    assert vocabulary_difference(teacher, tokenizer, 448, 448) is None


def test_many_tokens_that_one_of_them_has_alone_are_refused(tokenizer):
    teacher = make_tokenizer()
    teacher.add_tokens([f"<extra-{i}>" for i in range(70)])
    assert "70 ids exist in one alone" in refusal(tokenizer, teacher, 512, 512)


def test_same_ids_but_other_merges_are_refused(tokenizer):
    def reverse(described):
        described["model"]["merges"] = described["model"]["merges"][::-1]

    other = edited(reverse)
    assert other.get_vocab() == tokenizer.get_vocab()
    assert "the same token ids but split text differently" in refusal(tokenizer, other)


def test_same_ids_but_another_normalisation_is_refused(tokenizer):
    def lower(described):
        described["normalizer"] = {"type": "Lowercase"}

    assert "split text differently" in refusal(tokenizer, edited(lower))
