"""Bad rows and files through the real commands: no crash, nothing trained in silence, all counted with their place."""

import json
from collections import Counter

import pytest
from bad_corpus import ANSWER, CSV_FILES, FILES, QUESTION, ROWS, bad_lines, good, line_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dudi.data.convert import convert
from dudi.data.sources import load_rows
from dudi.errors import DudiError
from dudi.program.cli import main

RECIPE = """
student: package:dudi/mini/small
data:
  train: {source}
  max_rejected_share: {share}
languages: [id, my]
method: gkd
teacher: package:dudi/mini/base
cold_start: none
max_steps: 3
per_device_train_batch_size: 4
gradient_accumulation_steps: 1
max_length: 256
max_new_tokens: 4
samples_per_step: 100
mixing: sum
use_cpu: true
"""
GOOD = 12


def write_recipe(folder, source, share=0.05):
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(source=json.dumps(str(source)), share=share), encoding="utf-8")
    return path


def train(folder, source, share=0.05):
    return main(["train", str(write_recipe(folder, source, share)), "--output", str(folder / "run")])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A real run over twelve good rows with every bad one between them, and the number of the line of each."""
    folder = tmp_path_factory.mktemp("bad")
    lines, places = [line_of(good(0))], []
    for number, line in enumerate(bad_lines()):
        lines.append(line)
        places.append(len(lines))
        if number % 6 == 5 and len(lines) - len(places) < GOOD:
            lines.append(line_of(good(len(lines) - len(places))))
    while len(lines) - len(places) < GOOD:
        lines.append(line_of(good(len(lines) - len(places))))
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    assert train(folder, folder / "rows.jsonl", share=1.0) == 0
    return folder, places


def rejected(folder):
    return [json.loads(line) for line in (folder / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_corpus_is_large_enough():
    assert len({name for name, _, _ in ROWS}) == len(ROWS) >= 40
    assert len(ROWS) + len(FILES) + len(CSV_FILES) >= 100


def test_every_bad_row_is_counted_by_reason_with_file_and_line(trained):
    folder, places = trained
    found = {record["line"]: record for record in rejected(folder)}
    assert sorted(found) == places
    for (name, reason, _), line in zip(ROWS, places, strict=True):
        assert (name, found[line]["reason"]) == (name, reason)
        assert found[line]["file"] == str(folder / "rows.jsonl") and found[line]["detail"]
    counts = json.loads((folder / "run" / "data.json").read_text(encoding="utf-8"))
    assert counts["rejected"] == Counter(reason for _, reason, _ in ROWS)


def test_no_bad_row_is_trained_on(trained):
    folder, _ = trained
    samples = [json.loads(line) for line in (folder / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {sample["id"] for sample in samples} == {f"good-{number}" for number in range(GOOD)}
    assert {sample["gold"] for sample in samples} == {ANSWER}
    assert json.loads((folder / "run" / "data.json").read_text(encoding="utf-8"))["rows"] == {"id": GOOD}


@pytest.mark.parametrize(("make", "code", "words"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_every_bad_file_is_refused_in_a_line_or_two(tmp_path, capsys, make, code, words):
    source = make(tmp_path)
    assert train(tmp_path, source) == code
    message = capsys.readouterr().err
    assert words in message and message.startswith("error: ") and message.count("\n") <= 2
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_rejected_rows_are_those_of_the_run_that_is_in_the_folder(tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join([*(line_of(good(n)) for n in range(6)), b"{"]))
    (tmp_path / "good.jsonl").write_bytes(b"\n".join(line_of(good(n)) for n in range(6)))
    short = ["method=sft", "max_steps=1", "--output", str(tmp_path / "run")]
    assert main(["train", str(write_recipe(tmp_path, tmp_path / "bad.jsonl", 0.0)), *short]) == 3
    assert [record["reason"] for record in rejected(tmp_path)] == ["broken_json"]
    assert main(["train", str(write_recipe(tmp_path, tmp_path / "good.jsonl")), *short, "--dry-run"]) == 0
    assert (tmp_path / "run" / "rejected.jsonl").exists()
    assert main(["train", str(write_recipe(tmp_path, tmp_path / "good.jsonl")), *short]) == 0
    assert not (tmp_path / "run" / "rejected.jsonl").exists()


@pytest.mark.parametrize(("more", "trained"), [((), {"id": 6}), (("languages=[id, my, vi]",), {"id": 6, "vi": 2})])
def test_languages_says_which_rows_of_a_file_are_trained(tmp_path, capsys, more, trained):
    rows = [*map(good, range(6)), *(good(number) | {"language": "vi"} for number in (6, 7))]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(line_of, rows)))
    recipe = write_recipe(tmp_path, tmp_path / "rows.jsonl")
    assert main(["train", str(recipe), *more, "method=sft", "max_steps=1", "--output", str(tmp_path / "run")]) == 0
    data = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))
    left_out = {} if more else {"vi": 2}
    assert (data["rows"], data["left_out"], data["rejected"]) == (trained, left_out, {})
    assert ("other languages than id, my are left out: vi 2" in capsys.readouterr().out) == bool(left_out)


@pytest.mark.parametrize(("content", "code", "words"), [f[1:] for f in CSV_FILES], ids=[f[0] for f in CSV_FILES])
def test_every_bad_csv_is_refused_in_a_line_or_two(tmp_path, capsys, content, code, words):
    (tmp_path / "in.csv").write_bytes(content)
    words_of = ["prepare", "convert", str(tmp_path / "in.csv"), str(tmp_path / "out.jsonl"), "--language", "id"]
    assert main(words_of) == code
    message = capsys.readouterr().err
    assert words in message and message.startswith("error: ") and message.count("\n") <= 2
    assert not (tmp_path / "out.jsonl").exists()


# --- and what nobody thought of

WHOLE = b"\n".join(line_of(good(number)) for number in range(6))
CUT = st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 12), st.binary(max_size=12) | st.sampled_from(bad_lines()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.lists(CUT, min_size=1, max_size=4))
def test_any_damage_to_a_file_costs_rows_and_not_the_run(tmp_path, cuts):
    content = WHOLE
    for place, length, put in cuts:
        content = content[:place] + put + content[place + length :]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    loaded = load_rows(str(path), languages=["id", "my"])
    assert loaded.total == len(loaded.rows) + len(loaded.rejections)
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert loaded.total == len(lines)
    for row in loaded.rows:
        written = json.loads(content.split(b"\n")[row.line - 1].removeprefix(b"\xef\xbb\xbf"))
        assert row.completion == written["completion"].replace("\r", "\n") and row.prompt[0]["content"]
    for found in loaded.rejections.items():
        assert found.file == str(path) and 1 <= found.line <= content.count(b"\n") + 1 and found.reason


ANY = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([QUESTION, ANSWER, "\ud800", "\x00"])
)
RECORD = st.dictionaries(
    st.sampled_from(["instruction", "input", "output", "history", "system", "conversations", "language", "id"]),
    ANY | st.lists(ANY | st.dictionaries(st.sampled_from(["from", "value", "role"]), ANY), max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.lists(RECORD, max_size=4), st.sampled_from(["alpaca", "sharegpt", "rows"]))
def test_any_record_is_converted_or_counted(tmp_path, records, format):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    output.unlink(missing_ok=True)
    try:
        report = convert(source, output, format=format, language="id", max_rejected_share=1.0)
    except DudiError as error:
        assert str(error) and not output.exists()
        return
    assert report.total == len(records) == report.rows + len(report.rejections)
