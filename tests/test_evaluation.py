"""How an answer is obtained, scored, summed and shown."""

from __future__ import annotations

import dataclasses
import math
import unicodedata

import pytest
import torch
from sacrebleu.metrics import CHRF

from dudi.data.chat import chat_format
from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import SPLITS, guess_rate, questions
from dudi.data.rows import Message, Row
from dudi.evaluation import benchmark
from dudi.evaluation.asking import answers, reference_nats
from dudi.evaluation.benchmark import Answered, ask, described, fingerprint
from dudi.evaluation.scores import chrf, exact_match, in_language, normalise
from dudi.evaluation.summary import FLOOR, Scores, floor, scores, summarise
from dudi.evaluation.table import benchmark_tables
from dudi.langid import detect
from helpers import TEXT, make_model, make_tokenizer

ROWS = [
    Row(f"{code}-{n}", code, (Message(role="user", content=question + " ?" * (5 * n)),), answer)
    for n in range(2)
    for code, (question, answer) in TEXT.items()
]


@pytest.fixture(scope="module")
def chat():
    return chat_format(make_tokenizer(), {}, "tiny")


@pytest.fixture(scope="module")
def model(chat):
    """A random model that ends some of its answers, left in training mode with dropout on."""
    model = make_model(seed=4, dropout=0.5).train()
    with torch.no_grad():
        model.lm_head.weight[chat.end_of_turn] *= 3
    return model


# Scores of one answer


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (unicodedata.normalize("NFD", "Tiền tệ của Việt Nam là đồng."), "Tiền tệ của Việt Nam là đồng."),
        ("สกุลเงิน\u200bของ\u200bไทย", "สกุลเงินของไทย"),
        ("\ufeffmata\u00ad uang\u2060", "mata uang"),
        ('In Indonesian it is "Jerman"', "In Indonesian it is “Jerman”."),
        ("‘Jerman’", "«Jerman»"),
        ("Côte d'Ivoire", "Côte d’Ivoire"),
        ("THE EURO", "the euro"),
        ("  1.234 km\n", "1.234\u00a0km"),
        ("ใช่.", "ใช่"),
        ("ஆம்!", "ஆம்."),
        ("ဟုတ်ကဲ့", "ဟုတ်ကဲ့။"),
        ("ဟုတ်ကဲ့၊", "ဟုတ်ကဲ့။"),
        ("Oo…", "Oo."),
        ("“Ya.”", "Ya"),
    ],
)
def test_what_counts_as_the_same(answer, reference):
    assert exact_match(answer, reference) and exact_match(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("đồng", "dong"),
        ("ปากีสถาน", "ปากิสถาน"),
        ("The euro. It is used there.", "The euro."),
        ("the euro", "euro"),
        ("1.5", "15"),
        ("1 234", "1234"),
        ("C) Euro", "B) Euro"),
        ("க்\u200cஷ", "க்ஷ"),  # a zero-width non-joiner changes what is written
        ("", "Ya"),
        ("No, the currency there is the yen.", "Yes, the currency there is the yen."),
    ],
)
def test_what_does_not(answer, reference):
    assert not exact_match(answer, reference)


def test_normalise_shows_what_is_compared():
    assert normalise(" “The Euro”,  it IS.\n") == "the euro, it is"
    assert normalise("။") == normalise("") == ""


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The currency is the yen.", "The currency is the euro."),
        ("สกุลเงินของประเทศไทยคือบาท", "สกุลเงินของไทยคือบาท"),
        ("ယူရို", "ယန်း"),
        ("", "Euro"),
        ("x", "Euro"),
    ],
)
def test_chrf_is_sacrebleus(answer, reference):
    plain = CHRF(char_order=6, word_order=0, beta=2)
    assert chrf(answer, reference) == pytest.approx(plain.sentence_score(answer, [reference]).score)
    assert 0 <= chrf(answer, reference) < 100
    assert chrf(reference, reference) == pytest.approx(100)


def test_chrf_by_hand():
    """'abc' for 'abd': of characters 2 of 3, of pairs 1 of 2, of triples 0 of 1; the mean is 7/18 either way."""
    assert chrf("abc", "abd") == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize(
    ("answer", "reference", "language", "right"),
    [
        ("สกุลเงินของประเทศลาวคือยูโร", "สกุลเงินของประเทศลาวคือกีบลาว", "th", True),
        ("The currency of Laos is the kip.", "สกุลเงินของประเทศลาวคือกีบลาว", "th", False),
        ("老挝的货币是基普。", "สกุลเงินของประเทศลาวคือกีบลาว", "th", False),
        ("Tiền tệ của Nhật Bản là yên.", "Mata uang Jepang adalah Yen Jepang.", "id", False),
        ("Euro", "euro", "en", True),  # the reference itself, whatever a detector says
        ("Euro.", "euro", "vi", True),
        ("12", "15%", "th", True),  # nothing to tell in either
        ("12", "สกุลเงินของประเทศลาวคือกีบลาว", "th", False),
        ("", "15%", "th", False),
    ],
)
def test_in_language(answer, reference, language, right):
    assert in_language(answer, reference, language, LANGUAGES) is right


def test_malay_is_told_apart_and_counts_as_indonesian():
    malay = "Mata wang Jepun ialah yen dan bukannya ringgit."
    assert detect(malay, LANGUAGES) == "ms"
    assert in_language(malay, "Mata uang Jepang adalah Yen Jepang.", "id", LANGUAGES)
    assert not in_language(malay, "Ang pera ng Japan ay Japanese yen.", "tl", LANGUAGES)


# Asking


def test_answers_are_transformers_own_greedy_ones(model, chat):
    written = answers(model, chat, ROWS, max_new_tokens=12, batch_size=5)
    assert model.training
    model.eval()
    ended = 0
    for row, answer in zip(ROWS, written, strict=True):
        prompt = torch.tensor([chat.prompt_ids(row.prompt)])
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=list(chat.stop_ids),
            pad_token_id=chat.end_of_turn,
        )[0, prompt.shape[1] :]
        ended += int(out[-1]) in chat.stop_ids
        assert answer == chat.text(out.tolist()).strip()
    model.train()
    assert 0 < ended < len(ROWS)
    assert len(set(written)) > 3


def test_reference_nats_are_a_plain_log_softmax(model, chat):
    nats = reference_nats(model, chat, ROWS)
    assert model.training
    model.eval()
    for row, value in zip(ROWS, nats, strict=True):
        prompt, answer = chat.prompt_ids(row.prompt), chat.answer_ids(row.completion)
        assert answer[-1] == chat.end_of_turn
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        expected = -logits.log_softmax(-1)[range(len(answer)), answer].sum().item()
        assert value == pytest.approx(expected, rel=1e-5)
    model.train()


def test_the_batch_size_changes_nothing(model, chat):
    asked = questions(["th", "en"], ["units"], per_split=2, trained=LANGUAGES)
    through: list[int] = []
    alone = ask("student", model, chat, asked, max_new_tokens=6, batch_size=1)
    together = ask("student", model, chat, asked, max_new_tokens=6, batch_size=5, done=through.append)
    assert through == [5, 5, 2]
    for one, other in zip(alone, together, strict=True):
        assert other.bits == pytest.approx(one.bits, rel=1e-5)
        assert dataclasses.replace(other, bits=one.bits) == one


def test_a_record_says_what_was_asked_and_answered(model, chat):
    asked = questions(["my"], ["currency"], per_split=2, trained=LANGUAGES)
    answered = ask("teacher", model, chat, asked, max_new_tokens=4)
    assert [one.id for one in answered] == [question.row.id for question in asked]
    nats = reference_nats(model, chat, [question.row for question in asked])
    for one, question, cost in zip(answered, asked, nats, strict=True):
        assert (one.subject, one.language, one.task) == ("teacher", "my", "currency")
        assert (one.kind, one.split) == (question.fact.kind, question.split)
        assert (one.question, one.reference) == (question.row.prompt[-1]["content"], question.row.completion)
        assert one.bytes == len(one.reference.encode())
        assert one.bits == pytest.approx(cost / math.log(2), rel=1e-5)
        assert one.guess == guess_rate(question.fact, "my")
        assert one.exact is False and one.chrf < 100


def test_the_judgement_does_not_hang_on_which_languages_are_asked(model, chat, monkeypatch):
    """Among Indonesian and Thai alone, English would be the language with Latin letters: Indonesian."""
    english = "The official language of this country is certainly English."
    monkeypatch.setattr(benchmark, "answers", lambda model, chat, rows, **_: [english for _ in rows])
    asked = questions(["id", "th"], ["units"], per_split=1)
    assert not any(one.in_language for one in ask("base", model, chat, asked, max_new_tokens=1))


def test_perfect_answers_score_perfectly(model, chat, monkeypatch):
    monkeypatch.setattr(benchmark, "answers", lambda model, chat, rows, **_: [row.completion for row in rows])
    asked = questions(["vi", "ta"], ["currency", "calendar"], per_split=3, trained=LANGUAGES)
    total = scores(ask("teacher", model, chat, asked, max_new_tokens=1))
    assert (total.questions, total.exact_match, total.in_language) == (18, 1, 1)
    assert total.chrf == pytest.approx(100)


def test_described_says_how_to_compare():
    asked = questions(["vi", "ta"], ["units"], per_split=1, trained=LANGUAGES)
    told = described(asked, part="test", max_new_tokens=9)
    assert told["fingerprint"] == fingerprint(asked) and len(told["fingerprint"]) == 64
    assert (told["name"], told["part"], told["questions"]) == ("cldr-qa-1", "test", 6)
    assert (told["languages"], told["tasks"]) == (["vi", "ta"], ["units"])
    assert told["decoding"] == {"temperature": 0.0, "max_new_tokens": 9}
    assert told["cldr_version"] and told["babel_version"]


# Summing and showing


def record(**fields):
    plain = Answered("student", "x", "th", "units", "unit", "seen", "q", "r", "a", False, 0.0, False, 8.0, 4, 0.0)
    return dataclasses.replace(plain, **fields)


FOUR = [
    record(exact=True, chrf=100.0, in_language=True, bits=2.0, bytes=4, guess=1.0),
    record(chrf=50.0, in_language=True, bits=10.0, bytes=16, guess=0.25),
    record(language="my", split="unseen", chrf=30.0, bits=60.0, bytes=20, guess=0.25),
    record(language="my", split="transfer", task="currency", exact=True, chrf=100.0, in_language=True, bits=8.0),
]


def test_sums_by_hand():
    summary = summarise(FOUR)["student"]
    assert summary["overall"] == {
        "questions": 4,
        "exact_match": 0.5,
        "chrf": 70.0,
        "in_language": 0.75,
        "bits_per_byte": 80 / 44,
    }
    assert summary["by_split"]["seen"] == dataclasses.asdict(Scores(2, 0.5, 75.0, 1.0, 12 / 20))
    assert summary["by_language"]["my"] == dataclasses.asdict(Scores(2, 0.5, 65.0, 0.5, 68 / 24))
    assert summary["by_task"]["currency"] == dataclasses.asdict(Scores(1, 1.0, 100.0, 1.0, 2.0))
    by_both = summary["by_language_and_split"]
    assert {code: list(own) for code, own in by_both.items()} == {"th": ["seen"], "my": ["unseen", "transfer"]}
    assert by_both["my"]["unseen"] == dataclasses.asdict(Scores(1, 0.0, 30.0, 0.0, 3.0))


def test_the_floor_guesses_the_same_questions_once():
    teacher = [dataclasses.replace(one, subject="teacher", exact=True) for one in FOUR]
    summary = summarise(FOUR + teacher)
    assert list(summary) == [FLOOR, "student", "teacher"]
    assert summary[FLOOR]["overall"] == dataclasses.asdict(Scores(4, 0.375, None, None, None))
    assert summary[FLOOR]["by_split"]["unseen"]["exact_match"] == 0.25
    assert floor(FOUR[:1]) == Scores(1, 1.0, None, None, None)
    assert summarise([]) == {}


@pytest.fixture
def summary():
    """The widest there is: every subject, language and split, every share at 100."""
    return summarise(
        [
            record(subject=subject, language=code, split=split, exact=True, in_language=True, bits=999.0, guess=1.0)
            for subject in ("base", "cold_start", "student", "teacher")
            for code in LANGUAGES
            for split in SPLITS
        ]
    )


def test_tables_fit_a_terminal(summary):
    text = benchmark_tables(summary, "seqkd")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "…" not in text
    headings = [*SPLITS, "all", "in", "language", "bits", "per", "byte"]
    assert [line.split() for line in text.splitlines()].count(headings) == 1  # in one line
    assert text.count("100 > 100") == 3 * len(LANGUAGES)
    for word in ("guessing", "base", "cold start", "seqkd", "teacher", "Burmese", "249.75", *SPLITS):
        assert word in text


def test_tables_have_colour_where_it_is_asked_for(summary, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in benchmark_tables(summary, "dudi", colour=True)


def test_tables_of_another_subject(summary):
    text = benchmark_tables({FLOOR: summary[FLOOR], "mine": summary["base"]}, "dudi")
    assert "By language: mine" in text and "dudi" not in text
    assert ">" not in text


def test_a_split_that_was_not_asked_is_a_dash():
    lines = benchmark_tables(summarise(FOUR), "dudi").splitlines()
    assert next(line for line in lines if line.startswith("Thai")).split() == ["Thai", "50", "-", "-"]
    wanted = ["dudi", "50", "100", "0", "50", "75", "1.82"]
    assert next(line for line in lines if line.startswith("dudi")).split() == wanted
