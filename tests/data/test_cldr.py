"""Rows made from CLDR: the same each time, distinct, true, and in their language."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from babel import Locale
from babel.languages import get_official_languages

from dudi.data.cldr import KINDS, LANGUAGES, Fact, cldr_items, cldr_rows, fact_of, facts, prepare_cldr, row_of, word
from dudi.data.cldr.items import _check_words
from dudi.data.cldr.locales import countries, country_currencies, currencies, official_languages
from dudi.data.cldr.speaker import speaker
from dudi.data.cldr.tasks import _languages_elsewhere
from dudi.data.cldr.wording import WORDING_DIR, load_wording, placeholders, wording
from dudi.data.rows import Row
from dudi.errors import ConfigError, DataError, EnvironmentFault

SCRIPTS = {"th": r"[\u0e00-\u0e7f]", "ta": r"[\u0b80-\u0bff]", "my": r"[\u1000-\u109f]"}
THAI = r"[\u0e00-\u0e7f]"


@pytest.fixture(scope="module")
def items() -> list[tuple[Fact, Row]]:
    return cldr_items(LANGUAGES, 500)


def question(row: Row) -> str:
    return row.prompt[-1]["content"]


def answers(kind: str, key: tuple[str | int, ...], language: str) -> list[str]:
    pairs = [word(Fact(kind, key), language, number) for number in range(len(wording(language).questions[kind]))]
    return [pair[1] for pair in pairs if pair is not None]


def test_counts_and_order(items):
    rows = [row for _, row in items]
    assert len(rows) == 8 * 500
    assert [row.language for row in rows[:16]] == list(LANGUAGES) * 2
    assert len({fact.kind for fact, _ in items[:32]}) >= 10
    for language in LANGUAGES:
        kinds = Counter(fact.kind for fact, row in items if row.language == language)
        assert set(kinds) == set(KINDS)
        assert max(kinds.values()) - min(kinds.values()) <= 2


def test_rows_are_distinct_and_clean(items):
    assert len({row.id for _, row in items}) == len(items)
    assert len({(row.language, question(row)) for _, row in items}) == len(items)
    for fact, row in items:
        assert row.id.startswith(f"cldr-{row.language}-{fact.kind}-")
        assert len(row.prompt) == 1
        assert row.prompt[0]["role"] == "user"
        for text in (question(row), row.completion):
            assert text == text.strip()
            assert "{" not in text
            assert "  " not in text
            assert "None" not in text


def test_same_arguments_same_rows_in_another_process():
    code = (
        "import hashlib; from dudi.data.cldr import cldr_rows\n"
        "print(hashlib.sha256(repr(cldr_rows(['th', 'my', 'en'], 60, seed=3)).encode()).hexdigest())"
    )
    command = [sys.executable, "-X", "utf8", "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(repr(cldr_rows(["th", "my", "en"], 60, seed=3)).encode()).hexdigest()


def test_more_rows_keep_the_front_and_seeds_differ():
    few, many = cldr_rows(["vi", "ms"], 40, seed=1), cldr_rows(["vi", "ms"], 90, seed=1)
    assert many[: len(few)] == few
    assert cldr_rows(["vi"], 40, seed=1) == [row for row in few if row.language == "vi"]
    assert cldr_rows(["vi"], 40, seed=2) != cldr_rows(["vi"], 40, seed=1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_4000_rows(language):
    rows = cldr_rows([language], 4000)
    assert len({question(row) for row in rows}) == 4000


def test_more_than_can_be_made(monkeypatch):
    small = {"month_after": KINDS["month_after"]}
    monkeypatch.setattr("dudi.data.cldr.items.KINDS", small)
    monkeypatch.setattr("dudi.data.cldr.items._check_words", lambda own: None)
    assert len(cldr_rows(["en"], 12 * 35 * 3)) == 1260
    with pytest.raises(DataError, match=r"1261 rows asked for 'en', 1260 can be made"):
        cldr_rows(["en"], 1261)


def test_bad_arguments():
    with pytest.raises(ConfigError, match=r"'thi'.*did you mean 'th'"):
        cldr_rows(["thi"], 5)
    with pytest.raises(ConfigError, match="twice"):
        cldr_rows(["th", "th"], 5)
    with pytest.raises(ConfigError, match="at least one language"):
        cldr_rows([], 5)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        cldr_rows(["th"], 0)
    with pytest.raises(ConfigError, match="did you mean 'currency'"):
        facts("curency")


def test_facts_and_ids_belong_together(items):
    for fact, row in items:
        assert fact_of(row.id) == fact
    for kind in KINDS:
        known = facts(kind)
        assert len(set(known)) == len(known) < 10_000
    with pytest.raises(ConfigError, match="not the id of a CLDR row"):
        fact_of("cldr-th-currency-99999")
    with pytest.raises(ConfigError, match="not the id of a CLDR row"):
        fact_of("alpaca-1")
    with pytest.raises(ConfigError, match="number/1234567 is not listed"):
        row_of(Fact("number", (1234567,)), "en", 0)
    assert str(Fact("country_name", ("DE", "vi"))) == "country_name/DE/vi"


@pytest.mark.parametrize("language", SCRIPTS)
def test_questions_are_in_the_script_of_their_language(items, language):
    for fact, row in items:
        if row.language != language:
            continue
        assert re.search(SCRIPTS[language], question(row)), question(row)
        others = "".join(other for code, other in SCRIPTS.items() if code != language)
        foreign = re.sub(r"“[^”]*”", "", question(row) + row.completion)
        assert not re.search(others.replace("][", ""), foreign), foreign
        bare = fact.kind in {"number", "percent", "date", "unit"}
        assert bare or re.search(SCRIPTS[language], row.completion), row.completion


def test_latin_languages_write_latin_outside_quotations(items):
    for _, row in items:
        if row.language not in SCRIPTS:
            text = re.sub(r"“[^”]*”", "", question(row) + row.completion)
            assert not re.search("|".join(SCRIPTS.values()), text), text
            assert question(row)[0] == question(row)[0].upper()


def test_thai_has_no_space_between_question_particles_and_names():
    for pairs in wording("th").questions.values():
        for text in (text for pair in pairs for text in pair):
            assert not re.search(rf"{THAI} (คือ|ใน|ของ|ว่า){THAI}", text), text


def test_facts_by_hand():
    assert "สกุลเงินของประเทศไทยคือบาทไทย" in answers("currency", ("TH",), "th")
    assert "The currency of Thailand is the Thai baht." in answers("currency", ("TH",), "en")
    assert "Mata uang Indonesia adalah Rupiah Indonesia." in answers("currency", ("ID",), "id")
    assert "வியட்நாமீஸ் டாங்" in answers("currency", ("VN",), "ta")
    assert "Đơn vị tiền tệ của Việt Nam là đồng Việt Nam." in answers("currency", ("VN",), "vi")
    assert "In Thai it is “เยอรมนี”." in answers("country_name", ("DE", "th"), "en")
    assert "ประเทศเมียนมา (พม่า)" in answers("country_from_name", ("MM", "en"), "th")
    assert "Ang opisyal na wika ng Thailand ay ang wikang Thai." in answers("official_language", ("TH",), "tl")
    assert answers("official_languages", ("SG",), "en")[2] == "English, Chinese, Malay, and Tamil"
    assert answers("official_languages", ("SG",), "th")[2] == "ภาษาอังกฤษ ภาษาจีน ภาษามาเลย์ และภาษาทมิฬ"


def test_verdicts_and_choices_by_hand():
    assert "Yes, the currency of Japan is the Japanese yen." in answers("currency_yes_no", ("JP", 1), "en")
    assert "Tidak, mata uang Jepang adalah Yen Jepang." in answers("currency_yes_no", ("JP", 0), "id")
    assert answers("currency_yes_no", ("JP", 0), "th")[2] == "ไม่ใช่"
    assert answers("official_language_yes_no", ("JP", 1), "vi")[2] == "Đúng"
    assert answers("currency_choice", ("JP",), "tl")[2].endswith(") Japanese yen")
    assert answers("official_language_choice", ("JP",), "ms")[2].endswith(") bahasa Jepun")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["currency", "official_language"])
def test_claims_are_true_or_false_as_their_verdict_says(kind, language):
    own, name = speaker(language), f"{kind}_yes_no"
    told = kind.removeprefix("official_")
    seen: Counter[int] = Counter()
    for fact in facts(name):
        fields = KINDS[name].fields(own, *fact.key)
        known = KINDS[kind].fields(own, fact.key[0])
        assert (fields is None) == (known is None)
        if fields is None:
            continue
        true = fact.key[1]
        seen[true] += 1
        assert fields["country"] == known["country"]
        assert fields[told] == known[told]
        assert fields["verdict"] == wording(language).verdicts["yes" if true else "no"]
        assert (fields["claimed"].casefold() == known[told].casefold()) == bool(true)
        assert fields == KINDS[name].fields(own, *fact.key)
    assert seen[0] == seen[1] > 100


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["currency", "official_language"])
def test_exactly_one_option_is_right(kind, language):
    own, name = speaker(language), f"{kind}_choice"
    told = kind.removeprefix("official_")
    letters: Counter[str] = Counter()
    for fact in facts(name):
        fields, known = (KINDS[each].fields(own, *fact.key) for each in (name, kind))
        assert (fields is None) == (known is None)
        if fields is None:
            continue
        options = re.findall(r"([A-D])\) (.+?)(?= [A-D]\) |$)", fields["options"])
        assert [letter for letter, _ in options] == list("ABCD")
        assert len({option.casefold() for _, option in options}) == 4
        letter = fields["choice"][0]
        assert fields["choice"] == f"{letter}) {known[told]}"
        assert dict(options)[letter] == known[told]
        letters[letter] += 1
        assert fields == KINDS[name].fields(own, *fact.key)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 0.4 * letters.total()


@pytest.mark.parametrize("country", ["CH", "ES", "IT", "JP"])
def test_no_regional_language_is_offered_as_wrong(country):
    elsewhere = _languages_elsewhere(country)
    assert len(elsewhere) > 40
    assert not set(elsewhere) & set(get_official_languages(country, regional=True, de_facto=True))


def test_arithmetic_by_hand():
    assert "5 hari lagi adalah hari Sabtu." in answers("weekday_after", (0, 5), "id")
    assert "30 hari lagi adalah hari Selasa." in answers("weekday_after", (6, 30), "id")
    assert "3 days ago it was Saturday." in answers("weekday_before", (1, 3), "en")
    assert "In 14 months it will be January." in answers("month_after", (11, 14), "en")
    assert "Makalipas ang 24 na araw, Huwebes na." in answers("weekday_after", (0, 24), "tl")
    assert "January 1, 2000 is a Saturday." in answers("weekday_of_date", ("2000-01-01",), "en")


def test_formats_by_hand():
    assert answers("number", (1234567,), "id")[0] == "1.234.567"
    assert answers("number", (1234567,), "ta")[0] == "12,34,567"
    assert answers("number", (1234567,), "my")[0] == "၁,၂၃၄,၅၆၇"
    assert answers("percent", (256,), "vi")[1] == "25,6%"
    assert answers("percent", (290,), "en")[1] == "29%"
    assert answers("compact", (1_200_000,), "th")[1] == "1.2 ล้าน"
    assert answers("date", ("2024-03-05",), "th")[0] == "5 มีนาคม ค.ศ. 2024"
    assert answers("date", ("2024-03-05",), "my")[0] == "၂၀၂၄ မတ် ၅"
    assert answers("money", ("USD", 12500), "en")[0] == "12,500 US dollars"
    assert answers("unit", ("length-kilometer", 12), "th")[0] == "12 กิโลเมตร"
    assert answers("list", ("TH", "LA", "KH"), "th")[0] == "ไทย ลาว และกัมพูชา"
    assert answers("list", ("TH", "LA"), "my")[0] == "ထိုင်းနှင့် လာအို"
    assert answers("list", ("TH", "LA", "KH"), "my") == []


def test_only_countries_and_current_currencies():
    assert len(countries()) == 194
    assert not set(countries()) & {"ZZ", "EU", "UN", "XA", "XB", "EZ", "HK", "AQ", "PR"}
    assert not set(currencies()) & {"DEM", "XXX", "XTS", "XAU", "HRK", "VEF", "ZWL"}
    assert country_currencies()["HR"] == "EUR"
    assert "PA" not in country_currencies()
    assert "US" not in official_languages()
    assert official_languages()["ID"] == ("id",)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_missing_name_is_left_out(language):
    own = speaker(language)
    for code in ("ZZZ", "QQ"):
        assert own.country(code) is None
        assert own.language(code) is None
        assert own.currency(code) is None
    # babel's English knows Zimbabwe's new currency; the seven others do not.
    assert (own.currency("ZWG") is None) == (language != "en")
    named = [code for code in countries() if own.country(code)]
    assert len(named) >= 190
    assert all(own.bare_country(code) == own.locale.territories[code] != code for code in named)


def test_no_english_names_in_other_scripts():
    for language in SCRIPTS:
        own = speaker(language)
        for code in countries():
            assert not re.search("[A-Za-z]", own.country(code) or "")
        for code in currencies():
            assert not re.search("[A-Za-z]", own.currency(code) or "")
    # CLDR's Malay has no word for Tagalog; English has.
    assert Locale.parse("en").languages["tl"] == "Tagalog"
    malay = speaker("ms")
    assert malay._name("language", malay.locale.languages, "tl") is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_wording_file_has_the_same_kinds_and_placeholders(language):
    path = WORDING_DIR / f"{language}.toml"
    own = speaker(language)
    _check_words(own)
    assert set(own.words.questions) == set(KINDS)
    for kind, pairs in own.words.questions.items():
        assert len(set(pairs)) == len(pairs) >= 3
        assert len({asked for asked, _ in pairs}) == len(pairs)
        assert all(placeholders(path, kind, asked) == set(KINDS[kind].given) for asked, _ in pairs)
    assert {path.stem for path in WORDING_DIR.glob("*.toml")} == set(LANGUAGES)


def broken(tmp_path: Path, old: str, new: str) -> Path:
    text = (WORDING_DIR / "en.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "en.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('locale = "en"', "", r"en\.toml: locale: missing"),
        ('locale = "en"', "locale = 3", r"en\.toml: locale: must be a str, got 3"),
        ('month = "{name}"', "", r"en\.toml: forms\.month: missing"),
        ('month = "{name}"', 'month = "{nane}"', r"en\.toml: forms\.month: must hold \{name\}"),
        ('month = "{name}"', 'mouth = "{name}"', r"en\.toml: forms\.mouth: unknown key.*'month'"),
        ("unit = []", "unit = 3", r"en\.toml: skip\.unit: must be a list, got 3"),
        ("list_sizes = [2, 3, 4]", 'list_sizes = ["two"]', r"en\.toml: list_sizes: .*whole numbers"),
        ('yes = "Yes"', "", r"en\.toml: verdicts\.yes: missing"),
        ('yes = "Yes"', 'yes = "Yes"\nmaybe = "Perhaps"', r"en\.toml: verdicts\.maybe: unknown key"),
        ("unit = [\n", 'unit = [\n    "x",\n', r"en\.toml: questions\.unit\[1\]: must be a pair"),
        ("[questions]", "[questions", r"en\.toml: not a TOML file"),
    ],
)
def test_a_broken_wording_file_names_file_and_key(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load_wording(broken(tmp_path, old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"What is the currency of {country}?"',
            '"What?"',
            r"questions\.currency\[1\]: the question must hold \{country\}",
        ),
        (
            '"The currency of {country} is',
            '"The {money} of {country} is',
            r"questions\.currency\[1\]: the answer must hold",
        ),
        (
            '"{verdict}, the currency of {country} is the {currency}."',
            '"The currency of {country} is the {currency}."',
            r"questions\.currency_yes_no\[1\]: the answer must hold \{verdict\} and may hold .*\{currency\}",
        ),
        ("currency_code = [", "currency_cody = [", r"questions\.currency_code: missing"),
        ("{country}?", "{country?", r"questions\..*\[1\]: "),
    ],
)
def test_wording_is_held_to_its_kinds(tmp_path, old, new, message):
    own = dataclasses.replace(speaker("en"), words=load_wording(broken(tmp_path, old, new)))
    with pytest.raises(ConfigError, match=message):
        _check_words(own)


def test_missing_wording_file(tmp_path):
    with pytest.raises(ConfigError, match=r"xx\.toml: cannot read"):
        load_wording(tmp_path / "xx.toml")


def test_prepare_writes_rows_and_card(tmp_path):
    output = tmp_path / "deep" / "rows.jsonl"
    card = prepare_cldr(output, ["th", "en"], 30, seed=5)
    data = output.read_bytes()
    lines = [json.loads(line) for line in data.decode().splitlines()]
    rows = cldr_rows(["th", "en"], 30, seed=5)
    assert [line["id"] for line in lines] == [row.id for row in rows]
    assert lines[0] == {
        "id": rows[0].id,
        "language": "th",
        "prompt": list(rows[0].prompt),
        "completion": [{"role": "assistant", "content": rows[0].completion}],
    }
    assert "\\u0e" not in data.decode()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert card["languages"] == {"th": 30, "en": 30}
    assert sum(card["kinds"].values()) == card["rows"] == 60
    assert card == json.loads((output.parent / "rows.card.json").read_text(encoding="utf-8"))
    assert sorted(path.name for path in output.parent.iterdir()) == ["rows.card.json", "rows.jsonl"]


def test_prepare_says_when_the_disk_refuses(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write"):
        prepare_cldr(tmp_path / "file" / "rows.jsonl", ["en"], 5)


def test_fast_and_light():
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from dudi.data.cldr import LANGUAGES, cldr_rows; cldr_rows(LANGUAGES, 500)\n"
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(out[0]) < 15
    assert out[1:] == ["False", "False"]
