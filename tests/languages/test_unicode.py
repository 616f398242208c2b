"""Text of eight languages in every form that Unicode allows: kept, tokenised and rendered without a change."""

import json
import re
import unicodedata
from collections import Counter

import pytest
from babel import Locale
from hypothesis import given, settings
from hypothesis import strategies as st
from zawgyi_writer import to_zawgyi

from dudi.data.chat import chat_format
from dudi.data.cldr import cldr_rows
from dudi.data.convert import convert
from dudi.data.examples import SMALLEST_COMPLETION, tokenise
from dudi.data.rejections import Rejections
from dudi.data.rows import Row
from dudi.data.sources import load_rows
from dudi.distill.verbalizer import Verbalizer
from dudi.languages.registry import LANGUAGES, load_languages
from dudi.languages.zawgyi import is_zawgyi
from dudi.models.load import load_tokenizer
from helpers import make_tokenizer

STRINGS: dict[str, list[str]] = {
    "id": ["Café di Jalan Surya Kencana No. 5½", "ke\u0301ju", "100 % – “baik” … 🇮🇩"],
    "vi": ["Tiếng Việt có thanh điệu: Nguyễn Huệ", unicodedata.normalize("NFD", "Tiếng Việt, ngữ pháp, ưỡng")],
    "th": ["น้ำใจคนไทย", "น\u0e49\u0e4d\u0e32", "ที่\u200bนี่\u200bมี\u200bช่อง", "กี๊ ก๊ี ผู้ใหญ่ ๑๒๓", "ปฏิ\u200cบัติ"],
    "ta": ["தமிழ் கொ கோ கௌ", unicodedata.normalize("NFD", "கொ கோ கௌ"), "க்\u200cஷ ஸ்ரீ க்ஷ", "ௐ ௧௨௩"],
    "tl": ["Ano po ang pangálan ninyó?", "Niño, ñ, n\u0303, ₱1,000"],
    "ms": ["Ke\u200dmen\u200dterian", "e\u0301 è ê – RM10"],
    "my": ["မြန်မာဘာသာ", "သင်္ဘော ဥက္ကဋ္ဌ ဝတ္ထု", "က\u200bခ\u200dဂ\u2060", "၁၂၃ ၊ ။", "ဣဿရိယ ဩဇာ ဪ"],
    "en": [
        "naïve café – 👩‍👩‍👧‍👦 👍🏽 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "a\u00ad\u2011b\u00a0c",
        "ﬁ ½ Å Å K",
        "e" + "\u0301" * 12,
        "{question} {answer} \\1 $x %s",
    ],
}
EVERY = [(code, text) for code, texts in STRINGS.items() for text in texts]
IDS = [f"{code}-{number}" for number, (code, _) in enumerate(EVERY)]


@pytest.fixture(scope="module")
def formats():
    """Two tokenizers: one of eight languages, and one that spells nearly byte by byte."""
    return [
        chat_format(load_tokenizer("package:dudi/mini/small"), {}, "mini"),
        chat_format(make_tokenizer(vocab_size=300), {}, "bytes"),
    ]


def row_of(code, text, number=0):
    return Row(f"r{number}", code, ({"role": "user", "content": text},), text)


def test_the_table_has_what_it_is_for():
    everything = "".join(text for _, text in EVERY)
    assert set(STRINGS) == set(LANGUAGES)
    for needed in "\u200b\u200c\u200d\u2060\u0e33\u0e4d\u1039\u0301\u0bca\U0001f469":
        assert needed in everything
    assert any(unicodedata.normalize("NFC", text) != text for _, text in EVERY)
    assert any(unicodedata.normalize("NFD", text) != text for _, text in EVERY)


def test_a_file_gives_back_what_was_written(tmp_path):
    records = [{"id": str(n), "language": code, "prompt": t, "completion": t} for n, (code, t) in enumerate(EVERY)]
    for name, ascii_only in (("a.jsonl", False), ("b.jsonl", True)):
        lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        loaded = load_rows(str(tmp_path / name), languages=list(LANGUAGES))
        assert not loaded.rejections.counts
        assert [(row.prompt[0]["content"], row.completion) for row in loaded.rows] == [(t, t) for _, t in EVERY]
        other = Counter(code for code, text in EVERY if unicodedata.normalize("NFC", text) != text)
        assert (
            f"{other.total()} rows are not in Unicode's NFC" in loaded.notes[0]
            and f"vi {other['vi']}" in loaded.notes[0]
        )


def test_convert_writes_nfc_and_says_so(tmp_path):
    lines = [json.dumps({"language": code, "prompt": t, "completion": t}) for code, t in EVERY]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    loaded = load_rows(str(report.output), languages=list(LANGUAGES))
    assert [row.completion for row in loaded.rows] == [unicodedata.normalize("NFC", t) for _, t in EVERY]
    assert loaded.notes == () and "were not in Unicode's NFC, and are now" in str(report)


@pytest.mark.parametrize(("code", "text"), EVERY, ids=IDS)
def test_tokens_give_back_the_text(formats, code, text):
    for chat in formats:
        ids = chat.answer_ids(text)
        assert ids[-1] == chat.end_of_turn and chat.text(ids[:-1]) == text
        asked = [{"role": "user", "content": text}]
        assert text in chat.render(asked)
        assert chat.text(chat.prompt_ids(asked), special_tokens=True) == chat.render(asked)


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30))
def test_any_text_survives_tokens_and_template(formats, text):
    for chat in formats:
        if chat.special.search(text):
            continue
        assert chat.text(chat.answer_ids(text)[:-1], special_tokens=True) == text
        assert text in chat.render([{"role": "user", "content": text}])


# --- templates


def taken_apart(template, filled):
    """The slots of a filled template, found again from its fixed words."""
    parts = re.split(r"\{(question|answer|language)\}", template)
    pattern = "".join(f"(?P<{p}>.*)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
    return re.fullmatch(pattern, filled, re.DOTALL).groupdict()


@pytest.mark.parametrize(("code", "text"), EVERY, ids=IDS)
def test_every_template_can_be_taken_apart_again(formats, code, text):
    languages = load_languages()
    row = row_of(code, text)
    for mode in ("multilingual", "cross_lingual", "english"):
        said = Verbalizer(mode, list(LANGUAGES), seed=0).verbalize(row)
        z, p = said.teacher_messages[-1]["content"], said.student_messages[-1]["content"]
        if mode == "english":
            assert taken_apart(languages["en"].wording.sdft, z) == {"question": text, "answer": text} and p == text
            continue
        wording, name = languages[code].wording, languages[code].names[said.target_language]
        assert taken_apart(wording.teacher, z) == {"question": text, "answer": text, "language": name}
        assert taken_apart(wording.student, p) == {"question": text, "language": name}
        for chat in formats:
            assert chat.text(chat.prompt_ids(said.teacher_messages), special_tokens=True).count(z) == 1


# --- cutting


@settings(deadline=None, max_examples=25)
@given(st.integers(17, 120), st.lists(st.sampled_from(EVERY), min_size=1, max_size=6))
def test_a_prompt_is_whole_or_rejected_and_a_completion_is_a_beginning(formats, max_length, chosen):
    rows = [row_of(code, text, number) for number, (code, text) in enumerate(chosen)]
    for chat in formats:
        rejections = Rejections()
        long = [row for row in rows if len(chat.prompt_ids(row.prompt)) > max_length - SMALLEST_COMPLETION]
        if len(long) == len(rows):
            continue
        examples = tokenise(rows, chat, chat, max_length, rejections).examples
        assert rejections.counts.total() == len(long) == len(rows) - len(examples)
        for example in examples:
            whole, kept = chat.answer_ids(example.row.completion), example.completion.tolist()
            for prompt in (example.prompt, example.teacher_prompt):
                assert chat.text(prompt, special_tokens=True) == chat.render(example.row.prompt)
            assert kept == whole[: len(kept)] and example.ended == (kept == whole)
            assert (
                len(kept) == min(len(whole), max_length - len(example.prompt)) >= SMALLEST_COMPLETION or example.ended
            )


def test_a_prompt_that_is_too_long_for_the_teacher_loses_its_example_and_no_letter(formats):
    text = "မြန်မာ👩‍👩‍👧‍👦" * 4
    said = Verbalizer("cross_lingual", ["my", "en"], seed=0).verbalize(row_of("my", text), with_answer=False)
    assert said.teacher_messages[-1]["content"].count(text) == 1


# --- Zawgyi


@pytest.fixture(scope="module")
def burmese():
    """Every name of CLDR in Burmese, and the built-in questions and answers."""
    locale = Locale("my")
    names = [locale.languages, locale.territories, locale.scripts, locale.currencies]
    texts = {text for table in names for text in table.values()}
    rows = cldr_rows(["my"], 200, 0)
    texts |= {row.completion for row in rows} | {row.prompt[-1]["content"] for row in rows}
    return sorted(text for text in texts if re.search("[\u1000-\u109f]{3}", text))


def test_zawgyi_is_told_from_unicode(burmese):
    sentences = [text for text in burmese if len(text) >= 20 and to_zawgyi(text) != text]
    assert len(sentences) > 400
    assert [text for text in sentences if is_zawgyi(text)] == []
    found = sum(is_zawgyi(to_zawgyi(text)) for text in sentences)
    assert found / len(sentences) >= 0.99


def test_zawgyi_of_single_names(burmese):
    names = [text for text in burmese if to_zawgyi(text) != text]
    assert len(names) > 1000
    assert sum(is_zawgyi(text) for text in names) <= 2  # two of CLDR's names have a sign in a wrong place
    assert sum(is_zawgyi(to_zawgyi(text)) for text in names) / len(names) >= 0.93


@pytest.mark.parametrize("text", [text for code, text in EVERY if code == "my"])
def test_the_table_is_not_zawgyi(text):
    assert not is_zawgyi(text)


def test_only_burmese_rows_are_judged(tmp_path):
    zawgyi = to_zawgyi("နေပြည်တော် ဖြစ်ပါတယ်")
    records = [{"language": code, "prompt": f"{zawgyi}?", "completion": zawgyi} for code in ("my", "en")]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    loaded = load_rows(str(path), languages=list(LANGUAGES))
    assert [row.language for row in loaded.rows] == ["en"] and loaded.rejections.counts == {"zawgyi": 1}
