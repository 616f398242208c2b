"""How an answer is obtained, scored, summed and shown."""

from __future__ import annotations

import copy
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
from dudi.errors import ConfigError
from dudi.evaluation import questions as asking
from dudi.evaluation.cldr_qa import described, fingerprint, items_of
from dudi.evaluation.evaluate import Subject, evaluate
from dudi.evaluation.generate import Decoding, Generated, generate, reference_bits
from dudi.evaluation.metrics import METRICS
from dudi.evaluation.questions import Answered, ChosenQuestions, Item
from dudi.evaluation.records import Evaluation, SeedScores
from dudi.evaluation.scores import chrf, exact_match, in_language, normalise, repetition, token_f1, tokens
from dudi.evaluation.summary import Scores, floor, scores, tabulate
from dudi.evaluation.tables import benchmark_tables, evaluation_tables
from dudi.languages.detect import detect
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
        ("e\u200b\u0301", "é"),
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


@pytest.mark.parametrize("text", ["Tiền tệ của Việt Nam là đồng.", "ကျွန်ုပ်တို့", "காென்ன"])
def test_another_normal_form_is_the_same_text(text):
    """A fifth of the Burmese rows of TICO-19 are not in NFC."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert chrf(*forms) == chrf(*forms[::-1]) == chrf(text, text) == pytest.approx(100)
    assert exact_match(*forms) and token_f1(*forms) == 1


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
    assert not in_language(malay, "Mata uang Jepang adalah Yen Jepang.", "id", LANGUAGES, merge_malay=False)
    assert in_language(malay, "Mata wang Jepun ialah Yen Jepun.", "ms", LANGUAGES, merge_malay=False)
    assert not in_language(malay, "Ang pera ng Japan ay Japanese yen.", "tl", LANGUAGES)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The Euro, (in) “Europe”.", ["the", "euro", "in", "europe"]),
        ("Rp 1.500,00 - 12%", ["rp", "1.500,00", "12"]),
        ("தமிழ் நாடு", ["தமிழ்", "நாடு"]),  # Tamil parts its words
        ("tiền tệ", ["tiền", "tệ"]),
        ("ที่ไหน", ["ที่", "ไ", "ห", "น"]),
        ("ကျပ်ငွေ။", ["ကျ", "ပ်", "ငွေ"]),
        ("GDPของไทย 1.5", ["gdp", "ข", "อ", "ง", "ไ", "ท", "ย", "1.5"]),
        ("日本の円。", ["日", "本", "の", "円"]),
        ("… ! ။", []),
    ],
)
def test_what_is_a_token(text, pieces):
    assert tokens(text) == pieces


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("The currency is the yen.", "The currency is the euro.", 2 * 4 / (5 + 5)),  # `the` twice
        ("the the the", "the euro", 2 * 1 / (3 + 2)),
        ("Mata uangnya Yen", "Mata uang Jepang adalah yen.", 2 * 2 / (3 + 5)),
        ("บาท", "บาทไทย", 2 * 3 / (3 + 6)),
        ("ကျပ်", "ကျပ်ငွေ", 2 * 2 / (2 + 3)),
        ("ယူရို", "ကျပ်", 0),
        ("yen", "YEN!", 1),
        ("", "yen", 0),
        ("...", "?!", 1),
    ],
)
def test_token_f1_by_hand(answer, reference, f1):
    assert token_f1(answer, reference) == token_f1(reference, answer) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("a b c d a b c d", 1 / 5),  # abcd stands at both ends of five
        ("No no, no no. No no!", 2 / 3),
        ("anak anak anak anak anak", 1 / 2),
        ("กกกกก", 1 / 2),
        ("บาทไทย", 0),
        ("ကျပ်ကျပ်ကျပ်", 1 / 3),  # ABAB BABA ABAB
        ("a a a", 0),
        ("", 0),
    ],
)
def test_repetition_by_hand(answer, share):
    assert repetition(answer) == pytest.approx(share)


# Asking


def texts(written):
    return [one.text for one in written]


def test_answers_are_transformers_own_greedy_ones(model, chat):
    written = texts(generate(model, chat, ROWS, Decoding(12), batch_size=5))
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


def test_reference_bits_are_a_plain_log_softmax(model, chat):
    bits = reference_bits(model, chat, ROWS)
    assert model.training
    model.eval()
    for row, value in zip(ROWS, bits, strict=True):
        prompt, answer = chat.prompt_ids(row.prompt), chat.answer_ids(row.completion)
        assert answer[-1] == chat.end_of_turn
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        expected = -logits.log_softmax(-1)[range(len(answer)), answer].sum().item() / math.log(2)
        assert value == pytest.approx(expected, rel=1e-5)
    model.train()


def test_the_batch_size_changes_nothing(model, chat):
    asked = items_of(questions(["th", "en"], ["units"], per_split=2, trained=LANGUAGES))
    through: list[int] = []
    alone = ChosenQuestions(asked, Decoding(6), batch_size=1).answers(model, chat)
    together = ChosenQuestions(asked, Decoding(6), batch_size=5).answers(model, chat, done=through.append)
    assert through == [5, 5, 2]
    for one, other in zip(alone, together, strict=True):
        assert other.bits == pytest.approx(one.bits, rel=1e-5)
        assert dataclasses.replace(other, bits=one.bits) == one


def test_a_record_says_what_was_asked_and_answered(model, chat):
    asked = questions(["my"], ["currency"], per_split=2, trained=LANGUAGES)
    answered = ChosenQuestions(items_of(asked), Decoding(4)).answers(model, chat)
    assert [one.id for one in answered] == [question.row.id for question in asked]
    bits = reference_bits(model, chat, [question.row for question in asked])
    for one, question, cost in zip(answered, asked, bits, strict=True):
        assert (one.language, one.task) == ("my", "currency")
        assert (one.kind, one.split) == (question.fact.kind, question.split)
        assert (one.question, one.reference) == (question.row.prompt[-1]["content"], question.row.completion)
        assert one.bytes == len(one.reference.encode())
        assert one.bits == pytest.approx(cost, rel=1e-5)
        assert one.guess == guess_rate(question.fact, "my")
        assert one.exact is False and one.chrf < 100


def test_the_judgement_does_not_hang_on_which_languages_are_asked(model, chat, monkeypatch):
    """Among Indonesian and Thai alone, English would be the language with Latin letters: Indonesian."""
    english = "The official language of this country is certainly English."
    monkeypatch.setattr(asking, "generate", lambda model, chat, rows, *_, **__: [says(english) for _ in rows])
    asked = items_of(questions(["id", "th"], ["units"], per_split=1))
    assert not any(one.in_language for one in ChosenQuestions(asked, Decoding(1)).answers(model, chat))


def says(text):
    return Generated(text, 3, True)


def test_perfect_answers_score_perfectly(model, chat, monkeypatch):
    monkeypatch.setattr(asking, "generate", lambda model, chat, rows, *_, **__: [says(r.completion) for r in rows])
    asked = items_of(questions(["vi", "ta"], ["currency", "calendar"], per_split=3, trained=LANGUAGES))
    total = scores(ChosenQuestions(asked, Decoding(1)).answers(model, chat))
    assert (total.questions, total.exact_match, total.in_language, total.in_language_strict) == (18, 1, 1, 1)
    assert (total.token_f1, total.ended, total.length, total.empty) == (1, 1, 3, 0)
    assert total.chrf == pytest.approx(100)


def items(*codes, **fields):
    """Questions without a fact: rows of `TEXT`."""
    return [dataclasses.replace(Item(row), **fields) for row in ROWS if row.language in codes]


def judged(monkeypatch, model, chat, item, answer):
    monkeypatch.setattr(asking, "generate", lambda *_, **__: [says(answer)])
    (one,) = ChosenQuestions([item], Decoding(4)).answers(model, chat)
    return one


def test_the_best_of_several_references_counts(model, chat, monkeypatch):
    item = items("en", alternatives=("It is a city", "Singapore!"))[0]
    one = judged(monkeypatch, model, chat, item, "Singapore!")
    assert one.exact and one.token_f1 == 1 and one.chrf == pytest.approx(100)
    half = judged(monkeypatch, model, chat, item, "It is a town")
    assert not half.exact
    assert half.token_f1 == pytest.approx(3 / 4)
    assert half.chrf == pytest.approx(chrf("It is a town", "It is a city"))
    assert (half.reference, half.alternatives) == (item.row.completion, ("It is a city", "Singapore!"))
    assert half.bytes == len(item.row.completion.encode())  # bits per byte is the first one's


def test_a_language_that_dudi_does_not_know_is_not_judged(model, chat, monkeypatch):
    item = items("en")[0]
    foreign = dataclasses.replace(item, row=dataclasses.replace(item.row, language="sw"))
    one = judged(monkeypatch, model, chat, foreign, "Singapore is a city state.")
    assert (one.in_language, one.in_language_strict, one.exact) == (None, None, True)
    assert scores([one]).in_language is None
    assert scores([one, judged(monkeypatch, model, chat, item, "これは日本語の文章です")]).in_language == 0


def test_length_and_end_are_those_of_the_tokens(model, chat):
    written = generate(model, chat, ROWS, Decoding(12))
    rollouts = [one for one in written if one.ended]
    assert 0 < len(rollouts) < len(written)
    assert all(one.length == 12 for one in written if not one.ended)
    assert all(one.length < 12 for one in rollouts)


@pytest.mark.parametrize("extra", [{}, {"top_p": 0.8}, {"top_k": 5}], ids=str)
def test_sampled_answers_hang_on_seed_and_id_alone(model, chat, extra):
    exact, decoding = copy.deepcopy(model).double(), Decoding(8, 0.9, **extra)
    alone = generate(exact, chat, ROWS, decoding, seed=1, batch_size=1)
    assert generate(exact, chat, ROWS, decoding, seed=1, batch_size=8) == alone
    assert generate(exact, chat, ROWS[::-1], decoding, seed=1, batch_size=8) == alone[::-1]
    assert sum(a == b for a, b in zip(generate(exact, chat, ROWS, decoding, seed=2), alone, strict=True)) <= 2
    renamed = [dataclasses.replace(row, id=f"{row.id}x") for row in ROWS]
    assert sum(a == b for a, b in zip(generate(exact, chat, renamed, decoding, seed=1), alone, strict=True)) <= 2


def test_a_top_k_of_one_is_greedy(model, chat):
    assert generate(model, chat, ROWS, Decoding(8, 2.0, top_k=1), seed=5) == generate(model, chat, ROWS, Decoding(8))
    assert generate(model, chat, ROWS, Decoding(8, 2.0, top_p=1e-6), seed=5) == generate(model, chat, ROWS, Decoding(8))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p"),
        ({"temperature": 1.0, "top_k": 0}, "top_k"),
        ({"top_k": 5}, "temperature 0 samples nothing"),
    ],
)
def test_a_decoding_that_makes_no_sense(fields, said):
    with pytest.raises(ConfigError, match=said):
        Decoding(**{"max_new_tokens": 4, **fields})


def run_all(model, chat, asked, decoding=None, seeds=(0,), batch_size=64):
    how = {"name": "some", "questions": len(asked)}
    every = ChosenQuestions(asked, decoding or Decoding(6, 0.9), how, batch_size=batch_size)
    (found,), lines = evaluate([Subject("m", "folder", lambda: (model, chat))], [every], seeds)
    return found, lines


def test_every_seed_is_a_run(model, chat):
    asked = items("th", "en", split="easy")
    found, kept = run_all(model, chat, asked, seeds=[4, 2], batch_size=3)
    assert found.seeds == [2, 4] == sorted({one["seed"] for one in kept})
    assert len(kept) == 2 * len(asked)
    assert {(one["benchmark"], one["subject"]) for one in kept} == {("some", "m")}
    assert found.benchmark["decoding"] == {"temperature": 0.9, "max_new_tokens": 6}
    assert found.guessing() is None  # nobody knows what it reaches
    assert found.about["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    by_seed = [[one for one in kept if one["seed"] == seed] for seed in (2, 4)]
    assert len({tuple(one["answer"] for one in own) for own in by_seed}) == 2
    for run, own in zip(found.runs, by_seed, strict=True):
        answered = [Answered(**{key: one[key] for key in one if key not in ("benchmark", "subject")}) for one in own]
        assert run.scores == tabulate(answered, scores)
        assert list(run.scores["by_split"]) == ["easy"] and run.scores["by_task"] == {}
    first, second = found.values("bits_per_byte", "overall")
    assert first == second  # no seed changes it
    alone, _ = run_all(model, chat, asked, seeds=[4], batch_size=1)
    assert alone.runs[0].scores["by_language"]["th"]["chrf"] == found.runs[1].scores["by_language"]["th"]["chrf"]


def test_several_seeds_need_a_temperature(model, chat):
    with pytest.raises(ConfigError, match="2 seeds with temperature 0 give 2 times the same answers"):
        run_all(model, chat, items("en"), Decoding(4), seeds=[0, 1])
    with pytest.raises(ConfigError, match="each once; got 1, 1"):
        run_all(model, chat, items("en"), seeds=[1, 1])
    assert run_all(model, chat, items("en"), Decoding(4), seeds=[7])[0].seeds == [7]


def test_guessing_is_kept_where_it_is_known(model, chat):
    asked = items_of(questions(["en"], ["currency"], per_split=2))
    found, _ = run_all(model, chat, asked, Decoding(2))
    floors = found.guessing()
    assert floors.values("exact_match", "overall") == [sum(one.guess for one in asked) / len(asked)]
    assert (floors.name, floors.subject, floors.benchmark) == ("floor", "floor", found.benchmark)


def test_described_says_how_to_compare():
    asked = questions(["vi", "ta"], ["units"], per_split=1, trained=LANGUAGES)
    told = described(asked, "test")
    assert told["fingerprint"] == fingerprint(asked) and len(told["fingerprint"]) == 64
    assert (told["name"], told["part"], told["questions"]) == ("cldr-qa-1", "test", 6)
    assert (told["languages"], told["tasks"]) == (["vi", "ta"], ["units"])
    assert told["cldr_version"] and told["babel_version"]


# Summing and showing


def record(**fields):
    plain = Answered("x", "th", "units", "unit", "seen", "q", "r", "a", False, 0.0, False, 8.0, 4, 0.0)
    return dataclasses.replace(plain, **fields)


def more(strict, f1, repeated, length, ended=True):
    return {
        "in_language_strict": strict,
        "token_f1": f1,
        "repetition": repeated,
        "length": length,
        "ended": ended,
    }


FOUR = [
    record(exact=True, chrf=100.0, in_language=True, bits=2.0, bytes=4, guess=1.0, **more(True, 1.0, 0.0, 2)),
    record(chrf=50.0, in_language=True, bits=10.0, bytes=16, guess=0.25, **more(False, 0.5, 0.0, 4)),
    record(
        language="my",
        split="unseen",
        chrf=30.0,
        bits=60.0,
        bytes=20,
        guess=0.25,
        answer=" \n",
        **more(False, 0.0, 0.5, 10, ended=False),
    ),
    record(
        language="my",
        split="transfer",
        task="currency",
        exact=True,
        chrf=100.0,
        in_language=True,
        bits=8.0,
        **more(False, 1.0, 0.0, 4),
    ),
]


def totals(questions, exact, chrf, own, bits, strict, f1, repetition, length, ended, empty):
    return Scores(questions, exact, chrf, own, bits, strict, f1, repetition, length, ended, empty)


def test_what_was_not_measured_is_none():
    bare = [dataclasses.replace(FOUR[0], in_language_strict=None, token_f1=None, repetition=None, length=None)]
    found = scores(bare)
    assert (found.in_language_strict, found.token_f1, found.repetition, found.length) == (None,) * 4
    assert found.exact_match == 1


def test_questions_without_split_or_task_are_in_no_group():
    own = tabulate([dataclasses.replace(one, split="", task="", kind="") for one in FOUR], scores)
    assert own["by_split"] == own["by_task"] == own["by_kind"] == {}
    assert own["by_language_and_split"] == {"th": {}, "my": {}}
    assert own["overall"]["questions"] == 4


def test_sums_by_hand():
    summary = tabulate(FOUR, scores)
    assert summary["overall"] == {
        "questions": 4,
        "exact_match": 0.5,
        "chrf": 70.0,
        "in_language": 0.75,
        "in_language_strict": 0.25,
        "bits_per_byte": 80 / 44,
        "token_f1": 0.625,
        "repetition": 0.125,
        "length": 5.0,
        "ended": 0.75,
        "empty": 0.25,
    }
    assert summary["by_split"]["seen"] == dataclasses.asdict(totals(2, 0.5, 75.0, 1.0, 12 / 20, 0.5, 0.75, 0, 3, 1, 0))
    assert summary["by_language"]["my"] == dataclasses.asdict(
        totals(2, 0.5, 65.0, 0.5, 68 / 24, 0, 0.5, 0.25, 7, 0.5, 0.5)
    )
    assert summary["by_task"]["currency"] == dataclasses.asdict(totals(1, 1, 100.0, 1, 2.0, 0, 1, 0, 4, 1, 0))
    by_both = summary["by_language_and_split"]
    assert {code: list(own) for code, own in by_both.items()} == {"th": ["seen"], "my": ["unseen", "transfer"]}
    assert by_both["my"]["unseen"] == dataclasses.asdict(totals(1, 0, 30.0, 0, 3.0, 0, 0, 0.5, 10, 0, 1))


def test_the_floor_guesses_the_same_questions():
    guessed = tabulate(FOUR, floor)
    assert guessed["overall"] == dataclasses.asdict(Scores(4, 0.375))
    assert guessed["by_split"]["unseen"]["exact_match"] == 0.25
    assert floor(FOUR[:1]) == Scores(1, 1.0)


def told(answered, subject, name=None):
    """The evaluation of a subject of a run."""
    guessing = {"guessing": tabulate(answered, floor)}
    runs = (SeedScores(0, tabulate(answered, scores)),)
    return Evaluation(name or subject.replace("_", " "), "folder", {"name": "cldr-qa-1"}, runs, guessing, subject)


@pytest.fixture
def everybody():
    """The widest there is: every subject, language and split, every share at 100."""
    answered = [
        record(language=code, split=split, exact=True, in_language=True, bits=999.0, guess=1.0)
        for code in LANGUAGES
        for split in SPLITS
    ]
    roles = {"base": None, "cold_start": None, "student": "seqkd", "teacher": None}
    return [told(answered, subject, name) for subject, name in roles.items()]


def test_tables_fit_a_terminal(everybody):
    text = benchmark_tables(everybody)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and "…" not in text
    headings = [*SPLITS, "all", "in", "language", "bits", "per", "byte"]
    assert [line.split() for line in text.splitlines()].count(headings) == 1  # in one line
    assert text.count("100 > 100") == 3 * len(LANGUAGES)
    for word in ("guessing", "base", "cold start", "seqkd", "teacher", "Burmese", "249.75", *SPLITS):
        assert word in text


def test_tables_have_colour_where_it_is_asked_for(everybody, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1m" in benchmark_tables(everybody, colour=True)
    assert "\x1b" not in benchmark_tables(everybody)


def test_tables_of_another_subject(everybody):
    text = benchmark_tables([dataclasses.replace(everybody[0], name="mine", subject="")])
    assert "By language: mine" in text and "seqkd" not in text
    assert ">" not in text


def test_a_benchmark_without_splits_has_languages(everybody):
    plain = [told([record(split="", exact=True, language="th")], role) for role in ("base", "student")]
    lines = benchmark_tables([dataclasses.replace(one, benchmark={"name": "mine"}) for one in plain]).splitlines()
    assert next(line for line in lines if line.startswith("Thai")).split() == ["Thai", "100", ">", "100"]
    assert "seen" not in " ".join(lines)


def test_a_split_that_was_not_asked_is_a_dash():
    lines = benchmark_tables([told(FOUR, "student", "dudi")]).splitlines()
    assert next(line for line in lines if line.startswith("Thai")).split() == ["Thai", "50", "-", "-"]
    wanted = ["dudi", "50", "100", "0", "50", "75", "1.82"]
    assert next(line for line in lines if line.startswith("dudi")).split() == wanted


def evaluation(*runs, splits=SPLITS, about=None):
    """An evaluation whose runs say these shares everywhere."""

    def leaf(share):
        return {"questions": 3, "exact_match": share, "chrf": 100 * share, "in_language": None, "bits_per_byte": share}

    def scored(share):
        own = {split: leaf(share) for split in splits}
        return {
            "overall": leaf(share),
            "by_split": own,
            "by_language": {code: leaf(share) for code in LANGUAGES},
            "by_language_and_split": {code: own if code != "th" else {} for code in LANGUAGES},
        }

    how = {"name": "cldr-qa-1", "part": "test", "questions": 9, "decoding": {"temperature": 0.7, "max_new_tokens": 4}}
    every = tuple(SeedScores(seed, scored(share)) for seed, share in enumerate(runs))
    return Evaluation("mine", "folder", how, every, about or {})


def test_mean_and_std_over_seeds_by_hand():
    metric = METRICS["exact_match"]
    assert metric.shown([0.5, 0.7]) == ("60.0", "14.1")  # sqrt(2 * 10^2 / 1)
    assert metric.shown([0.25]) == ("25.0", "-")
    assert metric.shown([]) == ("-", "-")


def test_the_tables_of_an_evaluation():
    floor = {"by_split": {"seen": {"exact_match": 0.125}}, "overall": {"exact_match": None}}
    lines = evaluation_tables(evaluation(1.0, 0.0, about={"guessing": floor})).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "mine on cldr-qa-1, test: 9 questions, temperature 0.7, 2 seeds"
    cells = [line.split("  ") for line in lines]
    rows = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in reversed(cells)}
    spread = "50.0 ±70.7"
    assert rows["Burmese"] == [spread] * 4
    assert rows["Thai"] == ["-", "-", "-", spread]
    assert rows["all"] == [spread] * 4
    assert rows["guessing"] == ["12.5", "-", "-", "-"]
    assert next(line for line in lines if "bits per byte" in line.lower() and "0.500" in line).split()[-2:] == [
        "0.500",
        "0.707",
    ]
    assert sum(line.split()[-2:] == ["-", "-"] for line in lines) >= 6  # what was not measured


def test_one_seed_has_no_std():
    text = evaluation_tables(evaluation(0.5))
    assert "±" not in text and "seed 0" in text.splitlines()[0]


def test_many_splits_stand_below_each_other():
    text = evaluation_tables(evaluation(0.5, 0.25, splits=[f"split-{n}" for n in range(6)]))
    assert max(map(len, text.splitlines())) <= 80
    assert "By split" in text and sum(line.startswith("split-") for line in text.splitlines()) == 6
