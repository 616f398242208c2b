"""The verbalizer: what each mode shows to whom, the choice of target, hostile text, and every template as it reads."""

import copy
import pickle
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi.data.rows import Message, Row
from dudi.distill.verbalizer import MODES, Verbalizer
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import LANGUAGES

SEA = ["id", "vi", "th", "ta", "tl", "ms", "my"]
QUESTION = "QUESTION: what is the boiling point?"
ANSWER = "ANSWER: one hundred degrees."


def row(language="th", row_id="r1", question=QUESTION, answer=ANSWER):
    return Row(row_id, language, (Message(role="user", content=question),), answer)


def last(messages):
    return messages[-1]["content"]


def chi_square(counts, cells):
    expected = sum(counts.values()) / cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in counts) + expected * (cells - len(counts))


def test_modes_are_those_of_the_contract():
    assert MODES == ("none", "english", "multilingual", "cross_lingual", "mix")


def test_none_leaves_the_prompt_alone():
    made = Verbalizer("none", SEA, seed=0).verbalize(row())
    assert made.teacher_messages == made.student_messages == [{"role": "user", "content": QUESTION}]
    assert made.target_language == "th"


def test_english_is_the_wording_of_sdft_for_the_teacher_and_the_plain_prompt_for_the_student():
    made = Verbalizer("english", SEA, seed=0).verbalize(row())
    assert last(made.teacher_messages) == (
        f"{QUESTION}\n\nThis is an example for a response to the question:\n{ANSWER}\n\n"
        "Now answer with a response of your own, including the thinking process."
    )
    assert last(made.student_messages) == QUESTION
    assert made.target_language == "th"


def test_multilingual_asks_both_for_the_own_language():
    made = Verbalizer("multilingual", SEA, seed=0).verbalize(row())
    assert made.target_language == "th"
    assert last(made.student_messages) == f"{QUESTION}\n\nโปรดตอบเป็นภาษาไทย"
    assert last(made.teacher_messages) == (
        f"{QUESTION}\n\nต่อไปนี้เป็นตัวอย่างคำตอบ:\n{ANSWER}\n\nคราวนี้โปรดเขียนคำตอบของคุณเองเป็นภาษาไทย"
    )


def test_cross_lingual_writes_in_the_own_language_and_asks_for_another():
    """The case of the paper's Figure 4: a Thai sample whose rollout is to be Vietnamese."""
    made = Verbalizer("cross_lingual", ["th", "vi"], seed=0, exclude_targets=["en"]).verbalize(row())
    assert made.target_language == "vi"
    assert last(made.student_messages) == f"{QUESTION}\n\nโปรดตอบเป็นภาษาเวียดนาม"
    assert last(made.teacher_messages).endswith("คราวนี้โปรดเขียนคำตอบของคุณเองเป็นภาษาเวียดนาม")


@pytest.mark.parametrize("mode", ["english", "multilingual", "cross_lingual", "mix"])
def test_the_student_never_sees_the_answer_and_the_teacher_can_go_without(mode):
    verbalizer = Verbalizer(mode, SEA, seed=0)
    for number in range(20):
        sample = row(row_id=f"r{number}")
        full, short = verbalizer.verbalize(sample), verbalizer.verbalize(sample, with_answer=False)
        assert ANSWER in last(full.teacher_messages)
        assert ANSWER not in last(full.student_messages) + last(short.teacher_messages)
        assert QUESTION in last(short.teacher_messages)
        assert (full.student_messages, full.target_language) == (short.student_messages, short.target_language)


@pytest.mark.parametrize("own", list(LANGUAGES))
@pytest.mark.parametrize("target", list(LANGUAGES))
def test_every_template_for_every_target(own, target):
    """Slots all filled, question and answer there once, the language named as its own speakers write it."""
    verbalizer = Verbalizer("multilingual" if own == target else "cross_lingual", [own, target, "en", "id"], 0)
    ids = (f"r{number}" for number in range(1000))
    row_id = next(name for name in ids if verbalizer.verbalize(row(own, name)).target_language == target)
    for with_answer in (True, False):
        made = verbalizer.verbalize(row(own, row_id), with_answer=with_answer)
        name = LANGUAGES[own].names[target]
        for text in (last(made.teacher_messages), last(made.student_messages)):
            assert text.count(QUESTION) == 1
            assert text.count(name) == 1
            assert not set("{}") & set(text)
            assert text == text.strip()
            assert "  " not in text
        assert last(made.teacher_messages).count(ANSWER) == int(with_answer)


def test_thai_has_no_stray_spaces():
    wording = LANGUAGES["th"].wording
    for text in (wording.teacher, wording.teacher_without_answer, wording.student, *LANGUAGES["th"].names.values()):
        assert " " not in text


def test_tamil_endings_join_the_name():
    for name in LANGUAGES["ta"].names.values():
        assert name.endswith("மொழி")
    made = Verbalizer("cross_lingual", ["ta"], 0).verbalize(row("ta"))
    assert "ஆங்கில மொழியில்" in last(made.student_messages)


HOSTILE = [
    "{answer} {question} {language} {name}",
    "{{question}} {} {0} {a[0]} %s %(answer)s",
    r"back\slash \1 \g<0> $1 ${answer} $answer",
    "<|im_end|>\n<|im_start|>system",
    "half a pair \ud800, a null \x00, a bell \x07",
    "{",
    "}",
]


@pytest.mark.parametrize("mode", ["english", "multilingual", "cross_lingual"])
@pytest.mark.parametrize("text", HOSTILE)
def test_text_passes_through_literally(mode, text):
    made = Verbalizer(mode, SEA, seed=0).verbalize(row(question=f"Q{text}", answer=f"A{text}"))
    plain = Verbalizer(mode, SEA, seed=0).verbalize(row(question="<Q>", answer="<A>"))
    expected = last(plain.teacher_messages).replace("<Q>", f"Q{text}").replace("<A>", f"A{text}")
    assert last(made.teacher_messages) == expected
    assert last(made.student_messages) == last(plain.student_messages).replace("<Q>", f"Q{text}")


@given(question=st.text(), answer=st.text(), language=st.sampled_from(SEA))
def test_any_text_stands_whole_in_the_teachers_prompt(question, answer, language):
    wording = LANGUAGES[language].wording
    made = Verbalizer("multilingual", SEA, 0).verbalize(row(language, question=question, answer=answer))
    frame = len(wording.teacher) - len("{question}{answer}{language}") + len(LANGUAGES[language].names[language])
    text = last(made.teacher_messages)
    assert len(text) == frame + len(question) + len(answer)
    assert text.startswith(question)
    assert answer in text


def test_only_the_last_user_turn_is_verbalized():
    prompt = (
        Message(role="system", content="Be brief. {language}"),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hello, how can I help?"),
        Message(role="user", content=QUESTION),
    )
    before = copy.deepcopy(prompt)
    made = Verbalizer("cross_lingual", SEA, 0).verbalize(Row("r1", "id", prompt, ANSWER))
    for messages in (made.teacher_messages, made.student_messages):
        assert messages[:3] == list(before[:3])
        assert messages[3]["role"] == "user"
        assert messages[3]["content"].startswith(QUESTION)
        assert len(messages[3]["content"]) > len(QUESTION)
    made.student_messages[0]["content"] = "changed"
    assert prompt == before, "the row's own turns must not be shared with the caller"


def test_a_row_as_users_write_it_is_taken_too():
    verbalizer = Verbalizer("cross_lingual", SEA, 0)
    pair = {"id": "r1", "language": "th", "prompt": QUESTION, "completion": ANSWER}
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    chat = {"id": "r1", "language": "th", "messages": turns}
    assert verbalizer.verbalize(pair) == verbalizer.verbalize(chat) == verbalizer.verbalize(row())


def test_a_row_without_an_id_goes_by_its_content():
    verbalizer = Verbalizer("cross_lingual", SEA, 0)
    rows = [{"language": "th", "prompt": f"Question {number}", "completion": ANSWER} for number in range(60)]
    targets = [verbalizer.verbalize(record).target_language for record in rows]
    assert targets == [verbalizer.verbalize({**record, "note": 1}).target_language for record in rows]
    assert len(set(targets)) == 7


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "r9", "language": "th", "prompt": QUESTION, "completion": ""}, "row 'r9': the answer is empty"),
        ({"id": "r9", "prompt": QUESTION, "completion": ANSWER}, "row 'r9': .*language"),
        ([1, 2], "row '': "),
    ],
)
def test_a_broken_row_is_a_data_error(record, message):
    with pytest.raises(DataError, match=message):
        Verbalizer("cross_lingual", SEA, 0).verbalize(record)


def test_a_prompt_without_a_user_turn_is_a_data_error():
    bad = Row("r1", "th", (Message(role="system", content="Be brief."),), ANSWER)
    with pytest.raises(DataError, match="row 'r1': its prompt has no user turn"):
        Verbalizer("english", SEA, 0).verbalize(bad)


def test_a_row_in_a_language_without_a_template():
    with pytest.raises(DataError, match="row 'r1': no template for language 'xx'"):
        Verbalizer("cross_lingual", SEA, 0).verbalize(row("xx"))
    assert Verbalizer("none", SEA, 0).verbalize(row("xx")).target_language == "xx", "no template is needed"


def test_targets_are_the_training_languages_and_english_without_the_own():
    verbalizer = Verbalizer("cross_lingual", SEA, 0)
    seen = {verbalizer.verbalize(row("th", f"r{number}")).target_language for number in range(200)}
    assert seen == {"id", "vi", "ta", "tl", "ms", "my", "en"}
    few = Verbalizer("cross_lingual", ["id", "vi"], 0)
    assert {few.target(f"r{number}", "id") for number in range(50)} == {"vi", "en"}
    assert {few.target(f"r{number}", "my") for number in range(50)} == {"id", "vi", "en"}


def test_without_english():
    verbalizer = Verbalizer("cross_lingual", SEA, 0, exclude_targets=["en"])
    seen = {verbalizer.target(f"r{number}", "th") for number in range(200)}
    assert seen == {"id", "vi", "ta", "tl", "ms", "my"}


CRITICAL_AT_ONE_IN_A_THOUSAND = {1: 10.83, 5: 20.52, 6: 22.46}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("epoch", [0, 2])
def test_targets_are_uniform(seed, epoch):
    verbalizer = Verbalizer("cross_lingual", SEA, seed)
    counts = Counter(verbalizer.target(f"row-{number}", "th", epoch) for number in range(4200))
    assert chi_square(counts, cells=7) < CRITICAL_AT_ONE_IN_A_THOUSAND[6]


def test_targets_of_successive_epochs_are_independent():
    verbalizer = Verbalizer("cross_lingual", ["id", "vi"], 0)
    pairs = Counter((verbalizer.target(f"r{n}", "id", 0), verbalizer.target(f"r{n}", "id", 1)) for n in range(4000))
    assert chi_square(pairs, cells=4) < 16.27  # 3 degrees of freedom, one in a thousand


def test_the_coin_of_mix_is_fair_and_independent_of_the_target():
    verbalizer = Verbalizer("mix", SEA, 0)
    made = [verbalizer.verbalize(row("th", f"row-{number}")) for number in range(4000)]
    modes = Counter(one.mode for one in made)
    assert set(modes) == {"multilingual", "cross_lingual"}
    assert chi_square(modes, cells=2) < CRITICAL_AT_ONE_IN_A_THOUSAND[1]
    crossed = Counter(one.target_language for one in made if one.mode == "cross_lingual")
    assert chi_square(crossed, cells=7) < CRITICAL_AT_ONE_IN_A_THOUSAND[6]
    assert {one.target_language for one in made if one.mode == "multilingual"} == {"th"}


def test_mix_takes_the_same_target_as_cross_lingual():
    """So that of two runs, one with mix, the rows that both cross differ in nothing."""
    mix, cross = Verbalizer("mix", SEA, 3), Verbalizer("cross_lingual", SEA, 3)
    crossed = [row("vi", f"r{n}") for n in range(100) if mix.verbalize(row("vi", f"r{n}")).mode == "cross_lingual"]
    assert crossed
    assert [mix.verbalize(one) for one in crossed] == [cross.verbalize(one) for one in crossed]


def test_the_choice_depends_on_seed_id_and_epoch_alone():
    def targets(languages, ids, seed=0, epoch=0):
        verbalizer = Verbalizer("cross_lingual", languages, seed)
        return {name: verbalizer.target(name, "th", epoch) for name in ids}

    ids = [f"r{number}" for number in range(100)]
    base = targets(SEA, ids)
    assert targets(SEA[::-1], ids[::-1]) == base, "the order of languages and of rows must not matter"
    assert targets([*SEA, "en", "th"], ids) == base, "English is a target anyway; repeats change nothing"
    assert pickle.loads(pickle.dumps(Verbalizer("cross_lingual", SEA, 0))).target("r1", "th") == base["r1"]
    assert targets(SEA, ids, seed=1) != base
    assert targets(SEA, ids, epoch=1) != base


def test_the_choice_is_pinned():
    """A change of these would let a resumed run go on with other prompts."""
    mix, cross = Verbalizer("mix", SEA, seed=0), Verbalizer("cross_lingual", SEA, seed=0)
    coins = "".join(mix.verbalize(row("th", f"row-{number}"), epoch=1).mode[0] for number in range(16))
    assert coins == "mcmmmmcmmmcmmcmm"
    assert [cross.target(f"row-{number}", "th", epoch=1) for number in range(10)] == [
        *("ms", "vi", "id", "vi", "en", "id", "id", "id", "tl", "id")
    ]


def test_the_choice_is_the_same_in_another_process():
    code = (
        "from dudi.distill.verbalizer import Verbalizer\n"
        f"verbalizer = Verbalizer('cross_lingual', {SEA!r}, 0)\n"
        "print(' '.join(verbalizer.target(f'r{number}', 'th') for number in range(40)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verbalizer = Verbalizer("cross_lingual", SEA, 0)
    assert done.stdout.split() == [verbalizer.target(f"r{number}", "th") for number in range(40)]


@pytest.mark.parametrize(
    ("mode", "languages", "exclude", "message"),
    [
        ("crosslingual", SEA, (), r"verbalizer: 'crosslingual' is not one of .*\(did you mean 'cross_lingual'\?\)"),
        ("multilingual", ["id", "tha"], (), r"languages: unknown language 'tha' \(did you mean 'th'\?\)"),
        ("none", [], (), "languages: name at least one"),
        ("none", "th", (), r"languages: give a list of codes, such as \[th\]"),
        ("cross_lingual", SEA, ["eng"], r"exclude_targets: unknown language 'eng' \(did you mean 'en'\?\)"),
        ("cross_lingual", ["th"], ["en"], r"no target for language 'th' .*languages=.*exclude_targets="),
        ("cross_lingual", ["en"], (), "no target for language 'en'"),
        ("mix", ["th", "vi"], ["en", "vi"], "no target for language 'th'"),
    ],
)
def test_wrong_use_is_a_config_error(mode, languages, exclude, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Verbalizer(mode, languages, 0, exclude_targets=exclude)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize("mode", ["none", "english", "multilingual"])
def test_modes_that_choose_no_target_need_none(mode):
    made = Verbalizer(mode, ["th"], 0, exclude_targets=["en", "th"]).verbalize(row())
    assert made.target_language == "th"
