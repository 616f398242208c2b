"""The benchmark `cldr-qa-1`: nothing leaks, nothing moves, and what is called seen was read."""

from __future__ import annotations

import itertools
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import babel
import pytest

from dudi.data.cldr import LANGUAGES, Fact, benchmark, fact_of, facts
from dudi.data.cldr.benchmark import (
    FACTS_PER_OPEN_KIND,
    PARTS,
    SPLITS,
    TASKS,
    benchmark_facts,
    guess_rate,
    knowledge,
    part_of,
    questions,
    split_of,
    test_wording,
    trained_languages,
    training_rows,
    usual_answer,
)
from dudi.data.cldr.items import answer_value
from dudi.data.cldr.speaker import speaker
from dudi.errors import ConfigError, DataError
from dudi.evaluation.cldr_qa import fingerprint

test_wording.__test__ = False  # a function of the package, not a test

ROOT = Path(__file__).parents[2]
BABEL = "2.18.0"
FINGERPRINTS = {
    "test": "695bd52292a0adec40929cdafb985ec85703b262fc4818426380cc5a037a9d27",
    "validation": "67b5c7fc877095cb5f245fa35e246dd956cde6402abee8541f557625da2eea8b",
}
CLAIMS = ("currency", "official_language")
"""Kinds that are also asked as yes/no and as multiple choice."""
NOT_NAMES = tuple(task for task in TASKS if task != "names")


@pytest.fixture(scope="module")
def whole():
    """Rows and the questions of both parts: everything there is."""
    return training_rows(), {part: questions(part=part) for part in PARTS}


def text(row):
    return row.prompt[-1]["content"]


def wording_of(row):
    """The place of a row's paraphrase: the last digit of its id."""
    return int(row.id[-1])


def read(rows):
    """What a student has read: its pieces of knowledge and its questions, by language."""
    pieces, texts = defaultdict(set), defaultdict(set)
    for row in rows:
        pieces[row.language].add(knowledge(fact_of(row.id)))
        texts[row.language].add(text(row))
    return pieces, texts


def assert_no_leak(rows, asked):
    pieces, texts = read(rows)
    anywhere = set().union(*pieces.values())
    for question in asked:
        piece, language = knowledge(question.fact), question.row.language
        assert text(question.row) not in texts[language], question
        assert (piece in pieces[language]) == (question.split == "seen"), question
        assert (piece in anywhere) == (question.split != "unseen"), question


def test_nothing_leaks(whole):
    rows, asked = whole
    assert {row.language for row in rows} == set(LANGUAGES)
    assert {question.split for question in asked["test"]} == set(SPLITS)
    assert_no_leak(rows, asked["test"])
    assert_no_leak(rows, asked["validation"])


@pytest.mark.parametrize("languages", [["th", "vi"], ["my", "en", "ms"], ["ta"]], ids="-".join)
def test_nothing_leaks_with_some_languages(languages):
    tasks = ["currency", "choice", "units"] if "th" in languages else ["official_language", "formats"]
    asked = questions(languages, tasks)
    assert {question.row.language for question in asked} == set(languages)
    assert {question.split for question in asked} == set(SPLITS if len(languages) > 1 else ("seen", "unseen"))
    assert_no_leak(training_rows(languages, tasks), asked)


def test_nothing_leaks_when_the_questions_are_in_a_language_without_training():
    tasks = ["official_language", "names"]
    asked = questions(["en"], tasks, trained=["th", "vi"])
    assert {question.split for question in asked} == {"transfer", "unseen"}
    assert_no_leak(training_rows(["th", "vi"], tasks), asked)


def test_who_is_trained_on_open_questions_may_be_asked_the_others(whole):
    """`seen` is said of knowledge: a claim about Thailand's money is seen where the open question was."""
    rows, asked = whole
    trained = [row for row in rows if fact_of(row.id).kind in TASKS["currency"] + TASKS["official_language"]]
    closed = [question for question in asked["test"] if question.task in ("yes_no", "choice")]
    assert {question.split for question in closed} == set(SPLITS)
    assert_no_leak(trained, closed)


def test_a_fact_that_cldr_cannot_say_in_its_languages_is_unseen():
    """Libya's dinar would be trained in Vietnamese, which has no name for it: a Thai question is no transfer."""
    libya = Fact("currency", ("LY",))
    unsaid = [lang for lang in trained_languages("currency/LY") if answer_value(libya, lang) is None]
    assert unsaid == ["vi"]
    assert split_of(libya, "th", ["th", "vi"]) == "unseen"


@pytest.mark.parametrize("tasks", [("official_language",), ("units", "calendar")], ids="-".join)
def test_the_fewest_rows_hold_every_seen_fact_once(tasks, whole):
    kinds = {kind for task in tasks for kind in TASKS[task]}
    known = {(row.language, fact_of(row.id)) for row in whole[0] if fact_of(row.id).kind in kinds}
    fewest = max(Counter(language for language, _ in known).values())
    rows = training_rows(tasks=tasks, rows_per_language=fewest)
    assert Counter(row.language for row in rows) == dict.fromkeys(LANGUAGES, fewest)
    assert {(row.language, fact_of(row.id)) for row in rows} == known
    with pytest.raises(DataError, match=rf"between {fewest} .* got {fewest - 1}$"):
        training_rows(tasks=tasks, rows_per_language=fewest - 1)


def test_rows_per_language_has_two_bounds():
    tasks, languages = ["official_language"], ["my", "en"]
    per_language = Counter(row.language for row in training_rows(languages, tasks))
    most = min(per_language.values())
    assert len(training_rows(languages, tasks, most)) == 2 * most
    with pytest.raises(DataError, match=rf"rows_per_language must lie between \d+ .* and {most} .* got {most + 1}$"):
        training_rows(languages, tasks, most + 1)
    with pytest.raises(DataError, match=r"got 0$"):
        training_rows(languages, tasks, 0)


def test_training_rows_alternate_and_are_distinct(whole):
    rows = whole[0]
    assert [row.language for row in rows[:16]] == [*LANGUAGES, *LANGUAGES]
    assert len({row.id for row in rows}) == len(rows)
    few = training_rows(["th", "vi"], ["units"], 45)
    assert few == training_rows(["th", "vi"], ["units"])[: len(few)]


def test_no_row_has_the_wording_of_the_test(whole):
    rows, asked = whole
    for row in rows:
        assert wording_of(row) != test_wording(fact_of(row.id), row.language)
    for question in asked["test"]:
        assert wording_of(question.row) == test_wording(question.fact, question.row.language)


@pytest.mark.parametrize("kind", CLAIMS)
def test_claims_and_choices_share_their_knowledge_with_the_open_question(kind):
    for fact in benchmark_facts(kind):
        (country,) = fact.key
        claims = [Fact(f"{kind}_yes_no", (country, true)) for true in (0, 1)]
        forms = [fact, *claims, Fact(f"{kind}_choice", (country,))]
        assert set(forms[1:]) <= {*benchmark_facts(f"{kind}_yes_no"), *benchmark_facts(f"{kind}_choice")}
        assert len({knowledge(form) for form in forms}) == len({part_of(form) for form in forms}) == 1


def test_facts_of_two_countries_share_nothing():
    for kind in (*CLAIMS, "official_languages"):
        assert len({knowledge(fact) for fact in benchmark_facts(kind)}) == len(benchmark_facts(kind))


@pytest.mark.parametrize(("unit", "size", "first"), [("weekday", 7, 0), ("month", 12, 1)])
def test_after_and_before_are_one_piece_from_both_ends(unit, size, first):
    """'A, n steps on, is B' and 'B, n steps back, is A': the same three things, however they are asked."""

    def ends(fact):
        start, steps = map(int, fact.key)
        sign = 1 if fact.kind.endswith("after") else -1
        result = (start - first + sign * steps) % size + first
        return (start, steps, result) if sign == 1 else (result, steps, start)

    known = defaultdict(set)
    for fact in (*benchmark_facts(f"{unit}_after"), *benchmark_facts(f"{unit}_before")):
        known[ends(fact)].add(knowledge(fact))
    assert all(len(pieces) == 1 for pieces in known.values())
    assert len(set().union(*known.values())) == len(known)
    own = speaker("en")
    name = own.weekday if unit == "weekday" else own.month
    for fact in (*benchmark_facts(f"{unit}_after")[:9], *benchmark_facts(f"{unit}_before")[:9]):
        start, _, result = ends(fact)
        assert answer_value(fact, "en") == name(result if fact.kind.endswith("after") else start)


def test_a_country_and_its_foreign_name_are_one_piece():
    there, back = (list(map(knowledge, benchmark_facts(kind))) for kind in ("country_name", "country_from_name"))
    assert there == back
    assert knowledge(Fact("country_from_name", ("DE", "vi"))) == "country_name/DE/vi"


def test_parts_share_no_knowledge(whole):
    pieces = {part: {knowledge(question.fact) for question in asked} for part, asked in whole[1].items()}
    assert not pieces["test"] & pieces["validation"]
    share = len(pieces["validation"]) / sum(map(len, pieces.values()))
    assert 0.15 < share < 0.25


def test_three_languages_or_none():
    pieces = {knowledge(fact) for task in NOT_NAMES for kind in TASKS[task] for fact in benchmark_facts(kind)}
    counts = Counter(len(trained_languages(piece)) for piece in pieces)
    assert set(counts) == {0, 3}
    assert 0.12 < counts[0] / counts.total() < 0.19
    by_language = Counter(language for piece in pieces for language in trained_languages(piece))
    assert max(by_language.values()) < 1.3 * min(by_language.values())
    for kind in TASKS["names"]:
        assert all(trained_languages(knowledge(fact)) == set(LANGUAGES) for fact in benchmark_facts(kind))


def test_kinds_belong_to_one_task_and_are_capped():
    kinds = [kind for task in TASKS.values() for kind in task]
    assert len(kinds) == len(set(kinds))
    for kind in (*TASKS["names"], *TASKS["formats"], *TASKS["units"]):
        assert len(benchmark_facts(kind)) == FACTS_PER_OPEN_KIND
        assert set(benchmark_facts(kind)) <= set(facts(kind))


@pytest.mark.skipif(babel.__version__ != BABEL, reason=f"the fingerprints are those of babel {BABEL}")
@pytest.mark.parametrize("part", PARTS)
def test_the_questions_are_these(whole, part):
    assert fingerprint(whole[1][part]) == FINGERPRINTS[part], "the questions changed: that needs another NAME"


def test_another_cldr_is_said_once(monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (needed,) = [line for line in project["dependencies"] if line.startswith("babel")]
    monkeypatch.setattr(benchmark, "get_cldr_version", lambda: "48")
    benchmark._check_cldr.cache_clear()
    with pytest.warns(UserWarning) as told:
        questions(["en"], ["units"], per_split=1)
        training_rows(["en"], ["units"])
    (one,) = told
    assert "cldr-qa-1 is made of CLDR 47" in str(one.message) and "brings CLDR 48" in str(one.message)
    assert f"pip install '{needed}'" in str(one.message)
    assert one.filename == __file__
    benchmark._check_cldr.cache_clear()


@pytest.mark.skipif(babel.__version__ != BABEL, reason=f"the benchmark is that of babel {BABEL}")
def test_its_own_cldr_is_not_worth_a_word(recwarn):
    benchmark._check_cldr.cache_clear()
    questions(["en"], ["units"], per_split=1)
    assert not recwarn


def test_the_fingerprint_sees_every_change():
    asked = questions(["en"], ["units"], per_split=2)
    assert fingerprint(asked) == fingerprint(questions(["en"], ["units"], per_split=2))
    others = [asked[:-1], asked[::-1], questions(["en"], ["units"], per_split=2, trained=["th"])]
    assert len({fingerprint(some) for some in (asked, *others)}) == 4


def test_languages_and_tasks_are_subsets(whole):
    asked = whole[1]["test"]
    few = questions(["vi", "ta", "vi"], ["units"], trained=LANGUAGES)
    wanted = [q for code in ("vi", "ta") for q in asked if q.row.language == code and q.task == "units"]
    assert few == wanted


def test_per_split_is_a_limit_and_keeps_the_front():
    asked = questions(["th"], ["units", "calendar"], trained=LANGUAGES)
    few = questions(["th"], ["units", "calendar"], trained=LANGUAGES, per_split=10)
    for split in SPLITS:
        front = [q for q in few if q.split == split]
        assert front == [q for q in asked if q.split == split][:10]
        assert Counter(q.fact.kind for q in front) == dict.fromkeys(TASKS["units"] + TASKS["calendar"], 2)
    assert len(questions(["th"], ["units"], trained=LANGUAGES, per_split=10_000)) == sum(
        q.task == "units" for q in asked
    )


def test_unknown_words_are_named():
    with pytest.raises(ConfigError, match=r"no task 'curency' \(did you mean 'currency'\?\); there are names, "):
        questions(tasks=["curency"])
    with pytest.raises(ConfigError, match=r"no questions in 'thi' \(did you mean 'th'\?\); there are id, "):
        training_rows(["thi"])
    with pytest.raises(ConfigError, match=r"no questions in 'zz'"):
        questions(["en"], trained=["zz"])
    with pytest.raises(ConfigError, match=r"no part 'tests' \(did you mean 'test'\?\); there are test, validation"):
        questions(["en"], part="tests")
    with pytest.raises(ConfigError, match="at least one task"):
        training_rows(tasks=[])
    with pytest.raises(ConfigError, match="at least one language"):
        questions([])


@pytest.mark.parametrize("language", LANGUAGES)
def test_guessing_a_verdict_is_right_half_the_time(language):
    """Who always says yes, and repeats the claim, is right on every true claim."""
    for kind in CLAIMS:
        assert usual_answer(f"{kind}_yes_no", language) == speaker(language).verdict(True)
    facts_of_thailand = [Fact("currency_yes_no", ("TH", true)) for true in (1, 0)]
    assert [guess_rate(fact, language) for fact in facts_of_thailand] == [1.0, 0.0]
    assert guess_rate(Fact("currency_choice", ("TH",)), language) == 0.25


def test_guessing_an_open_answer_is_right_when_it_is_the_usual_one(whole):
    trained = {fact_of(row.id) for row in whole[0] if row.language == "en"}
    said = Counter(answer_value(fact, "en") for fact in trained if fact.kind == "currency")
    assert said.most_common(1)[0][0] == usual_answer("currency", "en") == "euro"
    assert guess_rate(Fact("currency", ("DE",)), "en") == 1.0
    assert guess_rate(Fact("currency", ("TH",)), "en") == 0.0


def test_references_hold_their_answer(whole):
    for question in whole[1]["test"][::9]:
        value = answer_value(question.fact, question.row.language)
        assert value is not None and value.casefold() in question.row.completion.casefold()


@pytest.fixture(scope="module")
def corpus():
    """`scripts/mini/corpus.py`: what the models of `dudi-mini` were pretrained on."""
    folder = Path(__file__).parents[2] / "scripts" / "mini"
    sys.path.insert(0, str(folder))
    try:
        import corpus
    finally:
        sys.path.remove(str(folder))
    return corpus


def test_the_base_student_reads_names_alone(corpus, whole, monkeypatch):
    kinds = Counter()

    def noting(function):
        def called(fact, *rest):
            kinds[fact.kind] += 1
            return function(fact, *rest)

        return called

    monkeypatch.setattr(corpus, "row_of", noting(corpus.row_of))
    monkeypatch.setattr(corpus, "word", noting(corpus.word))
    samples = list(itertools.islice(corpus.samples("base", 0), 3000))
    assert set(kinds) == set(corpus.BASE_WEIGHTS) == set(TASKS["names"])
    rows = [*whole[0], *(question.row for asked in whole[1].values() for question in asked)]
    others = [row for row in rows if fact_of(row.id).kind not in TASKS["names"]]
    said, answered = {text(row) for row in others}, {row.completion for row in others}
    for sample in samples:
        lines = {line for message in sample.messages for line in (message["content"], *message["content"].split("\n"))}
        assert not lines & said, sample
        assert sample.answer not in answered, sample


def test_the_teacher_reads_what_the_base_student_does_not(corpus):
    assert set(corpus.TEACHER_WEIGHTS) == {kind for kinds in TASKS.values() for kind in kinds}
