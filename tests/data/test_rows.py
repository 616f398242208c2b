"""What a row may look like, what it may not, and how bad rows are counted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi.data.rejections import IN_MEMORY, Rejections
from dudi.data.rows import MAX_CHARACTERS, MAX_TURNS, Row, RowError, parse_row
from dudi.errors import DataError, EnvironmentFault

CODES = ["id", "vi", "th", "en"]


def user(text="Apa ibu kota Indonesia?"):
    return {"role": "user", "content": text}


def assistant(text="Jakarta."):
    return {"role": "assistant", "content": text}


def system(text="Jawab singkat."):
    return {"role": "system", "content": text}


def good(**changes):
    return {"id": "r1", "language": "id", "prompt": "Apa kabar?", "completion": "Baik."} | changes


def talk(*turns, **changes):
    return {"id": "r1", "language": "id", "messages": list(turns)} | changes


def parse(record, **options):
    return parse_row(record, fallback_id="file:7", known_languages=CODES, **options)


def test_prompt_and_completion_as_text():
    assert parse(good()) == Row("r1", "id", ({"role": "user", "content": "Apa kabar?"},), "Baik.")


def test_messages_with_system_and_several_turns():
    row = parse(talk(system(), user("1"), assistant("2"), user("3"), assistant("4")))
    assert [turn["role"] for turn in row.prompt] == ["system", "user", "assistant", "user"]
    assert row.completion == "4"
    assert row.messages == [system(), user("1"), assistant("2"), user("3"), assistant("4")]


def test_prompt_and_completion_as_lists_or_mixed():
    want = Row("r1", "id", (system(), user("?")), "!")
    assert parse(good(prompt=[system(), user("?")], completion=[assistant("!")])) == want
    assert parse(good(prompt=[system(), user("?")], completion="!")) == want
    assert parse(good(prompt="?", completion=[assistant("!")])).completion == "!"


def test_null_columns_of_the_other_format_do_not_count():
    assert parse(good(messages=None)) == parse(good())
    assert parse(talk(user(), assistant(), prompt=None, completion=None)) == parse(talk(user(), assistant()))


def test_keys_beside_role_and_content_are_left_behind():
    row = parse(talk(user() | {"country": None, "tool_calls": None}, assistant(), source="x"))
    assert row.prompt == (user(),)


def test_ids():
    assert parse(good(id=12)).id == "12"
    assert parse(good(id=None)).id == parse(good(id="")).id == "file:7"
    assert parse({key: value for key, value in good().items() if key != "id"}).id == "file:7"


def test_language_of_a_column_and_a_fixed_one():
    assert parse(good(language=None), language="vi").language == "vi"
    assert parse(good(), language="id").language == "id"
    assert parse(good(lang="th", language=None), language_column="lang").language == "th"
    assert parse_row(good(language="ceb"), fallback_id="x").language == "ceb"


def test_line_ends_become_newlines_and_joiners_stay():
    row = parse(good(prompt="a\r\nb\rc\td", completion="က\u200b\u200cခ\u200d க்\u200cஷ"))
    assert row.prompt[0]["content"] == "a\nb\nc\td"
    assert row.completion == "က\u200b\u200cခ\u200d க்\u200cஷ"


def test_an_empty_system_turn_is_kept():
    assert parse(talk(system(""), user(), assistant())).prompt[0] == system("")


BAD = [
    ("not_an_object", ["prompt", "completion"]),
    ("not_an_object", None),
    ("missing_key", {"id": "r", "language": "id"}),
    ("missing_key", {"language": "id", "prompt": "a", "compleetion": "b"}),
    ("missing_key", talk({"role": "user"}, assistant())),
    ("missing_key", talk({"from": "human", "value": "a"}, assistant())),
    ("null", good(prompt=None)),
    ("null", good(completion=None)),
    ("null", {"language": "id", "messages": None}),
    ("null", talk(user(None), assistant())),
    ("two_formats", good(messages=[user(), assistant()])),
    ("wrong_type", good(prompt=7)),
    ("wrong_type", good(completion={"text": "b"})),
    ("wrong_type", talk(user(["parts"]), assistant())),
    ("wrong_type", talk("Apa kabar?", assistant())),
    ("wrong_type", talk({"role": 1, "content": "a"}, assistant())),
    ("wrong_type", good(id=1.5)),
    ("wrong_type", good(id=True)),
    ("wrong_type", good(language=3)),
    ("wrong_type", {"language": "id", "messages": "[]"}),
    ("bad_id", good(id="x" * 600)),
    ("bad_id", good(id="a\x00b")),
    ("bad_id", good(id="\ud800")),
    ("bad_id", good(id=10**5000)),
    ("too_many_characters", good(completion="x" * (MAX_CHARACTERS + 1))),
    ("too_many_turns", talk(*[user(), assistant()] * MAX_TURNS)),
    ("control_characters", good(completion="a\x00b")),
    ("control_characters", good(prompt="a\x1b[31mb")),
    ("control_characters", good(prompt="a\x0bb")),
    ("control_characters", good(prompt="a\x85b")),
    ("lone_surrogate", good(completion="a\ud83db")),
    ("unknown_role", talk({"role": "bot", "content": "a"}, assistant())),
    ("tool_turn", talk(user(), {"role": "tool", "content": "{}"}, assistant())),
    ("tool_turn", talk(user(), assistant("x") | {"tool_calls": [{"id": 1}]})),
    ("empty_messages", talk()),
    ("no_assistant_turn", talk(user())),
    ("no_user_turn", talk(assistant())),
    ("last_turn_not_assistant", talk(user(), assistant(), user())),
    ("last_turn_not_assistant", good(completion=[user()])),
    ("last_turn_not_user", good(prompt=[user(), assistant()])),
    ("completion_not_one_turn", good(completion=[assistant(), assistant()])),
    ("system_not_at_start", talk(user(), system(), user(), assistant())),
    ("roles_do_not_alternate", talk(user(), user(), assistant())),
    ("roles_do_not_alternate", talk(assistant(), user(), assistant())),
    ("empty_prompt", good(prompt=" \n")),
    ("empty_prompt", good(prompt=[])),
    ("empty_completion", good(completion="")),
    ("empty_completion", good(completion=[])),
    ("empty_completion", talk(user(), assistant("\u3000"))),
    ("empty_turn", talk(user(""), assistant(), user(), assistant())),
    ("missing_language", good(language=None)),
    ("unknown_language", good(language="xx")),
    ("unknown_language", good(language="ID")),
]


@pytest.mark.parametrize(("reason", "record"), BAD, ids=[f"{i}-{reason}" for i, (reason, _) in enumerate(BAD)])
def test_bad_rows(reason, record):
    with pytest.raises(RowError) as caught:
        parse(record)
    assert caught.value.reason == reason
    assert caught.value.detail
    assert len(str(caught.value)) < 400
    assert isinstance(caught.value, ValueError)


def test_a_column_against_the_fixed_language():
    with pytest.raises(RowError, match=r"'th'.*fixed language is 'id'") as caught:
        parse(good(language="th"), language="id")
    assert caught.value.reason == "language_conflict"


def test_messages_name_the_place_and_the_nearest_name():
    with pytest.raises(RowError, match="no `completion` \\(did you mean 'compleetion'\\?\\)"):
        parse({"language": "id", "prompt": "a", "compleetion": "b"})
    with pytest.raises(RowError, match=r"messages\[1\].content: control character U\+0007 at character 2"):
        parse(talk(user(), assistant("ab\x07")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]) | JSON, "content": JSON})
TURNS = st.lists(TURN | JSON, max_size=5) | JSON
RECORD = st.fixed_dictionaries(
    {}, optional={"id": JSON, "language": st.just("id") | JSON, "messages": TURNS, "prompt": TURNS, "completion": TURNS}
)


@given(RECORD | JSON)
def test_any_json_is_a_row_or_a_row_error(record):
    try:
        row = parse(record)
    except RowError as error:
        assert error.reason.isidentifier() and error.detail
        return
    assert row.language in CODES and row.id and row.completion.strip()
    assert row.prompt[-1]["role"] == "user"
    json.dumps(row.messages, ensure_ascii=False).encode("utf-8")
    assert parse_row({"id": row.id, "language": row.language, "messages": row.messages}, fallback_id="x") == row


def test_rejections_are_counted_written_and_shown(tmp_path):
    rejections = Rejections()
    rejections.add("empty_prompt", where="a.jsonl", line=3, detail="the question is empty", excerpt="x" * 500)
    rejections.add("empty_prompt", where="a.jsonl", line=9, row_id="r9")
    rejections.add("control_characters", where="b.jsonl", line=1, excerpt="\x1b[2J \ud800 ไทย")
    path = rejections.write(tmp_path / "sub" / "rejected.jsonl")
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["line"] for line in written] == [3, 9, 1]
    assert list(written[0]) == ["reason", "file", "line", "id", "detail", "excerpt"]
    assert len(written[0]["excerpt"]) == 200 and written[1]["id"] == "r9"
    assert written[2]["excerpt"] == "\\x1b[2J \\ud800 ไทย"
    assert rejections.counts == {"empty_prompt": 2, "control_characters": 1} and len(rejections) == 3
    assert rejections.summary()[0].strip() == "2 empty_prompt (as in a.jsonl:3: the question is empty)"
    assert len(rejections.items()) == 3 and rejections.items()[1].id == "r9"
    rejections.add("null", where="late")
    assert len(rejections.write(path).read_text(encoding="utf-8").splitlines()) == 4


def test_many_rejections_go_to_disk_and_come_back():
    rejections = Rejections()
    count = 2 * IN_MEMORY // 250
    for line in range(count):
        rejections.add("null", where="a.jsonl", line=line, excerpt="x" * 200)
    assert len(rejections) == count
    assert [found.line for found in rejections.items()] == list(range(count))


def test_too_large_a_share_stops(tmp_path):
    rejections = Rejections()
    for line in range(6):
        rejections.add("null", where="a.jsonl", line=line)
    rejections.check_share(100, 0.06)
    rejections.check_share(0, 0.0)
    rejections.write(tmp_path / "rejected.jsonl")
    with pytest.raises(DataError, match=r"6 of 100 rows .*5\.0%.*: null 6\n.*rejected\.jsonl"):
        rejections.check_share(100, 0.05)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write"):
        Rejections().write(tmp_path / "file" / "rejected.jsonl")
