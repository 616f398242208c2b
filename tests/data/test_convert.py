"""alpaca, sharegpt, CSV and dudi's own rows into rows with ids and languages."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.data.convert import convert
from dudi.data.csv_files import open_csv
from dudi.data.formats import Columns
from dudi.data.sources import load_rows
from dudi.errors import ConfigError, DataError

CODES = ["id", "vi", "th", "en"]
THAI = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"
VIETNAMESE = "Thủ đô của Việt Nam là Hà Nội, một thành phố có hơn một nghìn năm lịch sử."
ENGLISH = "The capital of England is London, a city that lies on the river Thames."


def run(tmp_path, content, name="in.json", out="out.jsonl", **options):
    source = tmp_path / name
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        source.write_text(text, encoding="utf-8")
    options = {"languages": CODES} | options
    return convert(source, tmp_path / out, **options)


def written(report):
    return load_rows(str(report.output), languages=CODES).rows


def test_alpaca(tmp_path):
    records = [
        {"instruction": "Terjemahkan.", "input": "Selamat pagi", "output": "Good morning", "id": "a1"},
        {"instruction": "Sebutkan tiga buah.", "input": "", "output": "Apel, jeruk, mangga."},
        {"instruction": "Lalu?", "output": "Lalu ini.", "system": "Singkat.", "history": [["Halo", "Hai"]]},
    ]
    report = run(tmp_path, records, language="id")
    rows = written(report)
    assert report.format == "alpaca" and report.languages == {"id": 3} and report.rejected is None
    assert rows[0].id == "a1" and rows[0].prompt[0]["content"] == "Terjemahkan.\n\nSelamat pagi"
    assert rows[1].id == "in.json:2" and rows[1].prompt[0]["content"] == "Sebutkan tiga buah."
    assert [turn["role"] for turn in rows[2].prompt] == ["system", "user", "assistant", "user"]
    assert rows[2].completion == "Lalu ini."


def test_sharegpt_as_jsonl(tmp_path):
    turns = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "Q"},
        {"from": "gpt", "value": "A"},
    ]
    lines = [{"conversations": turns, "language": "vi"}, {"system": "S", "conversations": turns[1:], "language": "th"}]
    report = run(tmp_path, "\n".join(map(json.dumps, lines)), name="in.jsonl", format="sharegpt")
    rows = written(report)
    assert [row.language for row in rows] == ["vi", "th"]
    assert rows[0].messages == rows[1].messages
    assert [turn["role"] for turn in rows[0].messages] == ["system", "user", "assistant"]


def test_csv_with_quotes_and_newlines(tmp_path):
    report = run(tmp_path, 'prompt,completion,language\n"Satu,\ndua?","Ya ""benar""  ",id\n', name="in.csv")
    (row,) = written(report)
    assert report.format == "csv" and row.prompt[0]["content"] == "Satu,\ndua?"
    assert row.completion == 'Ya "benar"  ' and row.id == "in.csv:3"


def test_csv_columns_tabs_semicolons_and_a_bom(tmp_path):
    columns = Columns(prompt="soal", completion="jawab", id="no", language="bahasa")
    report = run(tmp_path, "\ufeffno\tsoal\tjawab\tbahasa\n7\ta\tb\tid\n", name="in.tsv", columns=columns)
    assert (written(report)[0].id, written(report)[0].completion) == ("7", "b")
    assert run(tmp_path, "prompt;completion\na,b;c\n", name="in.csv", language="id").rows == 1
    with pytest.raises(ConfigError, match=r"no column 'prompt' \(did you mean 'prompts'\?\)"):
        run(tmp_path, "prompts,completion\na,b\n", name="in.csv", language="id")


def test_csv_with_a_column_of_messages(tmp_path):
    messages = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]).replace('"', '""')
    text = f'messages,language\n"{messages}",id\noops,id\n'
    report = run(tmp_path, text, name="in.csv", max_rejected_share=0.5)
    assert report.rows == 1 and report.rejections.counts == {"broken_json": 1}


def test_bad_csv_records_have_their_line(tmp_path):
    good = b"a,b,id\n" * 20
    bad = b"a,b\n" + b"\xff\xfe,b,id\n" + b",b,id\n"
    report = run(tmp_path, b"prompt,completion,language\n" + good + bad, name="in.csv", max_rejected_share=0.9)
    assert report.rows == 20
    assert [(found.line, found.reason) for found in report.rejections.items()] == [
        (22, "wrong_column_count"),
        (23, "invalid_utf8"),
        (24, "empty_prompt"),
    ]


def tsv(*prompts):
    return "prompt\tcompletion\n" + "".join(f"{prompt}\tJawapan {n}.\n" for n, prompt in enumerate(prompts))


@pytest.mark.parametrize("opened", ['"Siapa itu, tanya Siti', '"Apa kabar?" kata Ali', '"ya" dan "tidak'])
def test_a_quotation_mark_that_begins_a_cell_costs_no_row(tmp_path, opened):
    prompts = [f"Soalan {n}?" for n in range(40)]
    prompts[7] = prompts[30] = opened
    report = run(tmp_path, tsv(*prompts), name="in.tsv", language="id")
    assert [row.prompt[0]["content"] for row in written(report)] == prompts
    assert "cells are not quoted" in str(report)


def test_a_quotation_mark_that_closes_in_another_row_is_asked_about(tmp_path):
    text = tsv("a", '"Siapa itu', "b", 'lima inci 5"', "c")
    with pytest.raises(DataError, match=r"lines 3 to 5 are one row .*, and a row each"):
        run(tmp_path, text, name="in.tsv", language="id")
    assert run(tmp_path, text, name="in.tsv", language="id", quoted=False).rows == 5
    assert run(tmp_path, text, name="in.tsv", language="id", quoted=True).rows == 3
    with pytest.raises(ConfigError, match="is no CSV file"):
        run(tmp_path, [{"instruction": "a", "output": "b"}], language="id", quoted=False)


def test_a_long_cell_of_many_lines_is_one_cell(tmp_path):
    table = "nama,negeri\n" + f"bandar,{'x' * 13_000}\n" * 15
    rows = [("prompt", "completion"), ("Satu?", "1,\ndua"), ("Jadual?", table), ("Dua?", "2,\ntiga")]
    content = io.StringIO()
    csv.writer(content).writerows(rows)
    report = run(tmp_path, content.getvalue().encode(), name="in.csv", language="id")
    assert [(row.prompt[0]["content"], row.completion) for row in written(report)] == rows[1:]


CELL = st.text(alphabet='",;\t\n a"', min_size=1, max_size=6).map(lambda text: f"{text}.")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from(",;\t"), st.booleans())
def test_a_csv_file_is_read_as_it_was_written_or_refused(cells, delimiter, all_quoted):
    content = io.StringIO()
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    csv.writer(content, delimiter=delimiter, quoting=quoting).writerows([("prompt", "completion"), *cells])
    found = csv_rows(content.getvalue())
    assert found is None or found == cells


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_no_quotation_mark_of_a_plain_tsv_costs_a_row(cells):
    flat = [tuple(cell.translate({9: " ", 10: " "}) for cell in row) for row in cells]
    found = csv_rows("".join("\t".join(row) + "\n" for row in [("prompt", "completion"), *flat]))
    assert found is None or len(found) == len(flat)


def csv_rows(content):
    """The rows of a CSV file, or None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.csv"
        path.write_bytes(content.encode())
        try:
            return [tuple(located.value.values()) for located in open_csv(path).records()]
        except DataError:
            return None


def test_languages_are_detected_where_they_are_missing(tmp_path):
    records = [
        {"instruction": "Translate.", "output": THAI},
        {"instruction": "Hỏi", "output": VIETNAMESE},
        {"instruction": ENGLISH, "output": "42"},
        {"instruction": "Soal", "output": ENGLISH, "language": "id"},
    ]
    report = run(
        tmp_path, [*records, {"instruction": "1+1", "output": "2"}], detect_language=True, max_rejected_share=0.5
    )
    assert [row.language for row in written(report)] == ["th", "vi", "en", "id"]
    assert report.rejections.counts == {"language_not_detected": 1}


def test_a_detected_language_that_is_not_wanted(tmp_path):
    records = [
        {"instruction": "x", "output": VIETNAMESE},
        {"instruction": "以下请回答", "output": "北京是中国的首都，历史悠久。" * 3},
    ]
    report = run(tmp_path, records, detect_language=True, max_rejected_share=0.5)
    assert report.languages == {"vi": 1} and report.rejections.counts == {"unknown_language": 1}


def test_own_rows_get_ids_and_languages(tmp_path):
    report = run(tmp_path, [{"prompt": "?", "completion": THAI}], detect_language=True)
    assert report.format == "rows" and written(report)[0].language == "th"


def test_parquet_as_output(tmp_path):
    report = run(tmp_path, [{"instruction": "a", "output": "b"}] * 2500, out="out.parquet", language="id")
    assert len(written(report)) == 2500 and written(report)[0].messages[1] == {"role": "assistant", "content": "b"}


def test_too_many_bad_records_leave_the_old_output(tmp_path):
    run(tmp_path, [{"instruction": "a", "output": "b"}], language="id")
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"1 of 2 rows were rejected.*empty_completion 1\n.*out\.rejected\.jsonl"):
        run(tmp_path, [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": ""}], language="id")
    assert (tmp_path / "out.jsonl").read_bytes() == before
    (rejected,) = map(json.loads, (tmp_path / "out.rejected.jsonl").read_text(encoding="utf-8").splitlines())
    assert (rejected["reason"], rejected["line"]) == ("empty_completion", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "out.jsonl", "out.rejected.jsonl"]
    run(tmp_path, [{"instruction": "a", "output": "b"}], out="other.jsonl", language="id")
    assert (tmp_path / "out.rejected.jsonl").exists()  # another file's
    run(tmp_path, [{"instruction": "a", "output": "b"}], language="id")
    assert not (tmp_path / "out.rejected.jsonl").exists()


BAD = [
    ("missing_key", {"instruction": "a"}),
    ("wrong_type", {"instruction": "a", "input": 3, "output": "b"}),
    ("wrong_type", {"instruction": ["a"], "output": "b"}),
    ("wrong_type", {"instruction": "a", "output": "b", "history": 3}),
    ("wrong_type", {"instruction": "a", "output": "b", "history": ["ab"]}),
    ("wrong_type", {"instruction": "a", "output": "b", "history": [["a", "b", "c"]]}),
    ("null", {"instruction": None, "output": "b"}),
    ("not_an_object", "text"),
    ("wrong_type", {"conversations": "a"}),
    ("wrong_type", {"conversations": ["a"]}),
    ("wrong_type", {"conversations": [{"value": "a"}]}),
    ("null", {"conversations": [{"from": "human"}, {"from": "gpt", "value": "b"}]}),
    ("tool_turn", {"conversations": [{"from": "function_call", "value": "a"}, {"from": "gpt", "value": "b"}]}),
    ("unknown_role", {"conversations": [{"from": "alien", "value": "a"}, {"from": "gpt", "value": "b"}]}),
    ("last_turn_not_assistant", {"conversations": [{"from": f, "value": "a"} for f in ("human", "gpt", "human")]}),
]


@pytest.mark.parametrize(("reason", "record"), BAD, ids=[f"{i}-{reason}" for i, (reason, _) in enumerate(BAD)])
def test_bad_records(tmp_path, reason, record):
    format = "sharegpt" if isinstance(record, dict) and "conversations" in record else "alpaca"
    good = {
        "alpaca": {"instruction": "a", "output": "b"},
        "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    }
    report = run(tmp_path, [good[format], record], format=format, language="id", max_rejected_share=1.0)
    assert report.rejections.counts == {reason: 1} and report.rows == 1
    assert "1 rejected" in str(report) and str(report.output) in str(report)


def test_wrong_usage(tmp_path):
    records = [{"instruction": "a", "output": "b"}]
    with pytest.raises(ConfigError, match="give one of them"):
        run(tmp_path, records, language="id", detect_language=True)
    with pytest.raises(ConfigError, match=r"'alpacca' is not one of .* \(did you mean 'alpaca'\?\)"):
        run(tmp_path, records, format="alpacca", language="id")
    with pytest.raises(ConfigError, match=r"language: unknown language 'idd' \(did you mean 'id'\?\)"):
        run(tmp_path, records, language="idd")
    with pytest.raises(ConfigError, match="languages: unknown language 'xx'"):
        run(tmp_path, records, language="id", languages=["id", "xx"])
    with pytest.raises(ConfigError, match="no CSV file"):
        run(tmp_path, records, format="csv", language="id")
    with pytest.raises(ConfigError, match="same file"):
        run(tmp_path, records, out="in.json", language="id")
    with pytest.raises(ConfigError, match="rows are written as"):
        run(tmp_path, records, out="out.csv", language="id")
    with pytest.raises(ConfigError, match="no such file"):
        convert(tmp_path / "none.json", tmp_path / "out.jsonl", languages=CODES)
    with pytest.raises(DataError, match="cannot tell its format"):
        run(tmp_path, [{"text": "a"}], language="id")
    with pytest.raises(DataError, match="no good row"):
        run(tmp_path, [{"instruction": "a", "output": ""}], language="id", max_rejected_share=1.0)
    with pytest.raises(DataError, match="empty"):
        run(tmp_path, "", name="in.csv", language="id")


def test_a_folder_to_convert_is_told_from_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        convert(tmp_path, tmp_path / "out.jsonl")
