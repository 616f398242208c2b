"""Chat templates: where an answer starts, where it ends, and that nothing in them depends on the day."""

import datetime

import pytest
import torch
from transformers.utils import chat_template_utils

from dudi.data.chat import borrow_template, chat_format, template_kwargs
from dudi.errors import ConfigError
from helpers import CHATML, DATED, TEXT, THINKING, make_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1."},
    {"role": "user", "content": "Two?"},
]
QWEN = (  # as the real one: a newline after every turn
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
SPACED = (
    "{%- for m in messages -%}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant:{%- endif -%}"
)
ENDLESS = (
    "{%- for m in messages -%}{{ m['role'] }}: {{ m['content'] }}\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}assistant: {%- endif -%}"
)
CUT_SHORT = "{%- for m in messages -%}<|im_start|>{{ m['content'] }}{%- endfor -%}"
FORGETFUL = "{%- for m in messages if m['role'] == 'user' -%}<|im_start|>{{ m['content'] }}<|im_end|>{%- endfor -%}"
EOS_TEMPLATE = "{%- for m in messages -%}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{%- endfor -%}"


def make_format(template, **kwargs):
    return chat_format(make_tokenizer(template=template), kwargs, "a-model")


class TestEndOfTurn:
    @pytest.mark.parametrize(
        "template", [CHATML, QWEN, THINKING, DATED, SPACED], ids=["chatml", "qwen", "thinking", "dated", "lead"]
    )
    def test_found(self, template):
        chat = make_format(template)
        vocabulary = chat.tokenizer.get_vocab()
        assert chat.end_of_turn == vocabulary["<|im_end|>"]
        assert chat.stop_ids == (vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"])

    def test_where_it_is_the_eos_there_is_one_stop(self):
        chat = make_format(EOS_TEMPLATE)
        assert chat.end_of_turn == chat.tokenizer.eos_token_id
        assert chat.stop_ids == (chat.end_of_turn,)

    def test_a_special_token_that_has_no_role_of_its_own_counts_too(self):
        """Llama's <|eot_id|> is an added token, marked special, and in none of the named slots."""
        tokenizer = make_tokenizer(template=CHATML.replace("<|im_end|>", "<|eot|>"))
        from tokenizers import AddedToken

        tokenizer.add_tokens([AddedToken("<|eot|>", special=True)])
        assert chat_format(tokenizer, {}, "a-model").end_of_turn == tokenizer.get_vocab()["<|eot|>"]

    def test_answers_end_with_it(self, rows):
        chat = make_format(CHATML)
        for row in rows:
            ids = chat.answer_ids(row["completion"])
            assert ids[-1] == chat.end_of_turn
            assert chat.end_of_turn not in ids[:-1]

    @pytest.mark.parametrize(
        "template", [CHATML, QWEN, THINKING, DATED, SPACED], ids=["chatml", "qwen", "thinking", "dated", "lead"]
    )
    def test_prompt_and_answer_make_up_the_template(self, template):
        """The ids that are trained on are those of the whole conversation, as the template prints it."""
        chat = make_format(template)
        answer = {"role": "assistant", "content": "Ibu kota Indonesia adalah Jakarta."}
        whole = chat.tokenizer.apply_chat_template([*CONVERSATION, answer], tokenize=False, **chat.kwargs)
        ids = [*chat.prompt_ids(CONVERSATION), *chat.answer_ids(answer["content"])]
        assert whole.rstrip("\n") == chat.tokenizer.decode(ids)
        assert chat.tokenizer(whole.rstrip("\n"), add_special_tokens=False)["input_ids"] == ids or chat.lead

    def test_a_template_without_one_is_refused(self):
        for template in (ENDLESS, CUT_SHORT):
            with pytest.raises(ConfigError, match=r"a-model: .* rollouts could never end\. .*student\.chat_template"):
                make_format(template)

    def test_no_template_is_refused(self):
        with pytest.raises(ConfigError, match="a-model: its tokenizer has no chat template"):
            make_format(None)

    def test_a_template_that_loses_the_answer_is_refused(self):
        with pytest.raises(ConfigError, match="does not print the assistant's answer"):
            make_format(FORGETFUL)


class TestPrompt:
    def test_chatml(self):
        assert make_format(QWEN).render(CONVERSATION) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
            "<|im_start|>assistant\n1.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_thinking_is_off_unless_asked_for(self):
        thought = "<think>\n\n</think>\n\n"
        chat = make_format(THINKING)
        assert (chat.kwargs["enable_thinking"], chat.lead) == (False, "")
        assert chat.render(CONVERSATION).endswith("<|im_start|>assistant" + thought)
        # The template prints empty thoughts before an answer that has none, asked or not: they are prompt, not answer.
        asked = make_format(THINKING, enable_thinking=True)
        assert (asked.kwargs["enable_thinking"], asked.lead) == (True, thought)
        assert asked.render(CONVERSATION).endswith("<|im_start|>assistant" + thought)

    def test_a_space_before_the_answer_belongs_to_the_prompt(self):
        chat = make_format(SPACED)
        assert chat.lead == " "
        assert chat.render(CONVERSATION).endswith("<|im_end|><|im_start|>assistant: ")
        assert chat.tokenizer.decode(chat.prompt_ids(CONVERSATION)).endswith("assistant: ")

    def test_special_tokens_are_single_ids_and_none_is_added(self):
        chat = make_format(CHATML)
        ids = chat.prompt_ids(CONVERSATION)
        assert ids.count(chat.tokenizer.get_vocab()["<|im_start|>"]) == 5
        assert ids.count(chat.end_of_turn) == 4
        assert chat.tokenizer.decode(ids) == chat.render(CONVERSATION)

    def test_the_caller_keeps_the_messages_as_they_were(self):
        before = [dict(message) for message in CONVERSATION]
        make_format(THINKING).prompt_ids(CONVERSATION)
        assert before == CONVERSATION


class TestDate:
    @pytest.fixture
    def clock(self, monkeypatch):
        """Sets the day that templates are told."""

        def turn(year):
            class Clock(datetime.datetime):
                @classmethod
                def now(cls, tz=None):
                    return cls(year, 3, 1)

            monkeypatch.setattr(chat_template_utils, "datetime", Clock)

        return turn

    def test_it_does_not_change_with_the_clock(self, clock):
        seen = set()
        for year in (2024, 2031):
            clock(year)
            chat = make_format(DATED)
            seen.add((chat.render(CONVERSATION), tuple(chat.prompt_ids(CONVERSATION)), chat.digest))
        assert len(seen) == 1
        assert "Today is 26 Jul 2024" in seen.pop()[0]

    def test_the_template_alone_would(self, clock):
        """So that the test above means something."""
        rendered = []
        for year in (2024, 2031):
            clock(year)
            rendered.append(make_tokenizer(template=DATED).apply_chat_template(CONVERSATION, tokenize=False))
        assert "2024" in rendered[0] and "2031" in rendered[1]

    def test_the_users_date_wins(self):
        assert "Today is 1 Jan 2000" in make_format(DATED, date_string="1 Jan 2000").render(CONVERSATION)


class TestDigest:
    def test_same_for_the_same_format(self):
        assert make_format(CHATML).digest == make_format(CHATML).digest

    def test_moves_with_template_and_kwargs(self):
        digests = [
            make_format(CHATML).digest,
            make_format(THINKING).digest,
            make_format(THINKING, enable_thinking=True).digest,
            make_format(DATED).digest,
            make_format(DATED, date_string="1 Jan 2000").digest,
        ]
        assert len(set(digests)) == len(digests)


class TestBorrow:
    def test_a_student_without_takes_the_teachers(self):
        student = make_tokenizer(template=None)
        assert borrow_template(student, make_tokenizer(template=THINKING))
        assert student.chat_template == THINKING

    def test_a_student_keeps_its_own(self):
        student = make_tokenizer(template=CHATML)
        assert not borrow_template(student, make_tokenizer(template=THINKING))
        assert student.chat_template == CHATML

    def test_nothing_to_take(self):
        student = make_tokenizer(template=None)
        assert not borrow_template(student, None)
        assert not borrow_template(student, make_tokenizer(template=None))
        assert not student.chat_template


def test_kwargs_per_model():
    given = {
        "enable_thinking": True,
        "date_string": "today",
        "student": {"enable_thinking": False},
        "teacher": {"custom": 1},
    }
    assert template_kwargs(given, "student") == {"enable_thinking": False, "date_string": "today"}
    assert template_kwargs(given, "teacher") == {"enable_thinking": True, "date_string": "today", "custom": 1}
    assert template_kwargs({"student": None}, "student") == {}
    assert template_kwargs({}, "teacher") == {}


@pytest.mark.parametrize("language", TEXT)
def test_text_survives(language):
    """Byte for byte, in scripts that need several bytes a letter and joiners that print nothing."""
    chat = make_format(CHATML)
    for text in (*TEXT[language], f"  {TEXT[language][1]}\n\n\tက\u200b္\u200dஸ்ரீ 😀 e\u0301 "):
        ids = chat.answer_ids(text)
        assert chat.text(ids) == text
        assert chat.text(torch.tensor(ids).tolist()) == text


THINKS = (  # as DeepSeek's R1 distillations: the generation prompt opens a thought, and no answer shows one
    "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n<think>\n' }}{%- endif -%}"
)
STRIPS = {
    "all": ("{{ m['content'] | trim }}", (None, None)),
    "newlines": ("{{ m['content'].strip('\n') }}", ("\n", "\n")),
    "the end": ("{{ m['content'].rstrip() }}", ("", None)),
    "nothing": ("{{ m['content'] }}", ("", "")),
}


def as_printed(chat, answer):
    """What the template makes of a conversation, with what is trained of it."""
    turns = [*CONVERSATION, {"role": "assistant", "content": answer}]
    ids = [*chat.prompt_ids(CONVERSATION), *chat.answer_ids(answer)]
    return chat.tokenizer.apply_chat_template(turns, tokenize=False, **chat.kwargs), chat.tokenizer.decode(ids)


def test_a_thought_that_no_answer_has_is_not_opened():
    chat = make_format(THINKS)
    assert (chat.cut, chat.lead) == ("<think>\n", "")
    printed, trained = as_printed(chat, "2.")
    assert trained == printed and "<think>" not in trained


@pytest.mark.parametrize("kind", STRIPS)
@pytest.mark.parametrize("answer", ["2.", "2.\n", "\n 2. \n", "  2.\n\n"])
def test_an_answer_is_trained_as_the_template_prints_it(answer, kind):
    content, strips = STRIPS[kind]
    chat = make_format(QWEN.replace("+ m['content'] +", f"}}}}{content}{{{{"))
    assert chat.strips == strips
    printed, trained = as_printed(chat, answer)
    assert trained == printed.removesuffix("\n")


@pytest.mark.parametrize("template", [CHATML, QWEN, THINKING, DATED, SPACED, THINKS])
def test_no_text_is_trained_that_the_template_does_not_make(template):
    chat = make_format(template)
    printed, trained = as_printed(chat, "2.")
    assert trained == printed.removesuffix("\n")
