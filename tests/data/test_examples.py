"""Rows as ids: what is cut, what is rejected, and that both are counted."""

import numpy as np
import pytest

from dudi.data.chat import chat_format
from dudi.data.examples import digest_of, tokenise, with_completion
from dudi.data.rejections import Rejections
from dudi.data.rows import Message, Row
from dudi.errors import DataError
from helpers import CHATML, TEXT, THINKING, make_tokenizer

LONG = "Jakarta Bandung Surabaya Medan Makassar " * 4


def make_row(name="row", language="id", prompt=TEXT["id"][0], completion=LONG):
    return Row(name, language, (Message(role="user", content=prompt),), completion)


@pytest.fixture(scope="module")
def chat():
    return chat_format(make_tokenizer(template=CHATML), {}, "student")


@pytest.fixture(scope="module")
def thinking():
    return chat_format(make_tokenizer(template=THINKING), {}, "teacher")


def sizes(chat, row):
    """Tokens of the prompt, and of the completion with its end of turn."""
    return len(chat.prompt_ids(row.prompt)), len(chat.answer_ids(row.completion))


class TestLengths:
    def test_a_row_that_fits_exactly_keeps_its_end_of_turn(self, chat):
        row = make_row()
        prompt, completion = sizes(chat, row)
        made = tokenise([row], chat, None, prompt + completion, Rejections())
        (example,) = made.examples
        assert example.ended
        assert example.completion.tolist() == chat.answer_ids(row.completion)
        assert example.prompt.tolist() == chat.prompt_ids(row.prompt)
        assert made.truncated == {}

    @pytest.mark.parametrize("missing", [1, 2, 10])
    def test_a_longer_one_is_cut_on_the_right_and_has_no_end_of_turn(self, chat, missing):
        row = make_row()
        prompt, completion = sizes(chat, row)
        made = tokenise([row], chat, None, prompt + completion - missing, Rejections())
        (example,) = made.examples
        assert not example.ended
        assert example.completion.tolist() == chat.answer_ids(row.completion)[:-missing]
        assert chat.end_of_turn not in example.completion
        assert len(example.prompt) + len(example.completion) == prompt + completion - missing
        assert made.truncated == {"id": 1}

    def test_sixteen_tokens_of_room_are_enough(self, chat):
        row = make_row()
        prompt, completion = sizes(chat, row)
        assert completion > 17
        rejections = Rejections()
        (example,) = tokenise([row], chat, None, prompt + 16, rejections).examples
        assert len(example.completion) == 16
        assert len(example.prompt) == prompt
        assert len(rejections) == 0

    def test_fifteen_are_not(self, chat):
        row, short = make_row("too-long"), make_row("short", prompt="?")
        prompt, _ = sizes(chat, row)
        rejections = Rejections()
        made = tokenise([row, short], chat, None, prompt + 15, rejections)
        assert [example.row.id for example in made.examples] == ["short"]
        assert rejections.counts == {"prompt_too_long": 1}
        (rejection,) = rejections.items()
        assert rejection.id == "too-long"
        assert rejection.detail == f"{prompt} tokens"

    def test_a_long_prompt_is_rejected_even_where_prompt_and_completion_fit(self, chat):
        row = make_row(completion="Ya.")
        prompt, completion = sizes(chat, row)
        assert completion < 16
        with pytest.raises(DataError):
            tokenise([row], chat, None, prompt + completion, Rejections())

    def test_counts_per_language(self, chat):
        rows = [
            make_row("a", "id"),
            make_row("b", "vi"),
            make_row("c", "id"),
            make_row("d", "th", completion="ok"),
            make_row("e", "my", prompt=TEXT["my"][0] * 20),
        ]
        prompt, _ = sizes(chat, rows[0])
        rejections = Rejections()
        made = tokenise(rows, chat, None, prompt + 20, rejections)
        assert made.truncated == {"id": 2, "vi": 1}
        assert [(e.row.id, e.ended) for e in made.examples] == [("a", False), ("b", False), ("c", False), ("d", True)]
        assert rejections.counts == {"prompt_too_long": 1}

    def test_the_teachers_prompt_is_never_cut_and_does_not_count(self, chat, thinking):
        row = make_row()
        prompt, completion = sizes(chat, row)
        made = tokenise([row], chat, thinking, prompt + completion, Rejections())
        (example,) = made.examples
        assert example.teacher_prompt.tolist() == thinking.prompt_ids(row.prompt)
        assert len(example.teacher_prompt) > prompt
        assert example.ended and made.truncated == {}

    def test_without_a_teacher_its_prompt_is_the_students(self, chat):
        (example,) = tokenise([make_row()], chat, None, 512, Rejections()).examples
        assert np.array_equal(example.teacher_prompt, example.prompt)


class TestNothingLeft:
    def test_all_prompts_too_long(self, chat):
        rows = [make_row(str(i), prompt=LONG) for i in range(3)]
        rejections = Rejections()
        with pytest.raises(DataError, match=r"no row is left of 3: every prompt passes max_length - 16 = 24 tokens"):
            tokenise(rows, chat, None, 40, rejections)
        assert rejections.counts == {"prompt_too_long": 3}

    def test_no_rows(self, chat):
        with pytest.raises(DataError, match="the dataset has no rows"):
            tokenise([], chat, None, 40, Rejections())


class TestDigest:
    def make(self, chat, *rows, teacher=None, max_length=512):
        return tokenise(rows, chat, teacher, max_length, Rejections())

    def test_same_for_the_same_ids(self, chat):
        made = self.make(chat, make_row("a"), make_row("b"))
        assert made.digest == self.make(chat, make_row("a"), make_row("b")).digest == digest_of(made.examples)

    def test_moves_with_whatever_the_models_read(self, chat, thinking):
        a, b = make_row("a"), make_row("b")
        digests = [
            self.make(chat, a, b).digest,
            self.make(chat, b, a).digest,
            self.make(chat, a).digest,
            self.make(chat, a, make_row("c")).digest,
            self.make(chat, a, make_row("b", completion=LONG + "x")).digest,
            self.make(chat, a, make_row("b", prompt="?")).digest,
            self.make(chat, a, b, teacher=thinking).digest,
            self.make(chat, a, b, max_length=80).digest,
        ]
        assert len(set(digests)) == len(digests)

    def test_a_token_cannot_move_from_prompt_to_completion_unseen(self, chat):
        (example,) = self.make(chat, make_row("a")).examples
        import dataclasses

        moved = dataclasses.replace(
            example,
            teacher_prompt=example.teacher_prompt[:-1],
            completion=np.concatenate([example.teacher_prompt[-1:], example.completion]),
        )
        assert digest_of([example]) != digest_of([moved])


class TestAnotherTarget:
    def test_it_is_cut_like_the_ground_truth(self, chat):
        (example,) = tokenise([make_row()], chat, None, 512, Rejections()).examples
        room = 20
        limit = len(example.prompt) + room
        whole = with_completion(example, range(5, 5 + room), True, limit)
        assert whole.completion.tolist() == list(range(5, 25)) and whole.ended
        cut = with_completion(example, range(5, 6 + room), True, limit)
        assert cut.completion.tolist() == list(range(5, 25)) and not cut.ended
        assert not with_completion(example, range(5, 10), False, limit).ended
        assert np.array_equal(whole.prompt, example.prompt) and whole.row is example.row
        assert whole.completion.dtype == np.int32
