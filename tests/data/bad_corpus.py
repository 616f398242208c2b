"""Rows and files that must never be trained on, each with the reason or the words by which it is refused.

`ROWS` is one line of JSONL each; `FILES` are sources as a whole.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dudi.data.rows import MAX_CHARACTERS, MAX_TURNS

QUESTION, ANSWER = "Apa ibu kota Indonesia?", "Jakarta."
ZAWGYI = ("ျမန္မာနိုင္ငံ၏ ၿမိဳ႕ေတာ္က ဘာလဲ။", "ေနျပည္ေတာ္ ျဖစ္ပါတယ္။")
"""A question and its answer as a Zawgyi keyboard writes them."""


def good(number: int, **changes: object) -> dict[str, object]:
    return {"id": f"good-{number}", "language": "id", "prompt": f"{QUESTION} {number}", "completion": ANSWER} | changes


def bad(**changes: object) -> dict[str, object]:
    return {"id": "bad", "language": "id", "prompt": QUESTION, "completion": ANSWER} | changes


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in bad().items() if name != key}


def talk(*roles: str, **changes: object) -> dict[str, object]:
    turns = [{"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles)]
    return {"id": "bad", "language": "id", "messages": turns} | changes


def said(*contents: str | None) -> dict[str, object]:
    """Turns of user and assistant."""
    turns = [{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(contents)]
    return {"id": "bad", "language": "id", "messages": turns}


def line_of(content: object) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()


def escaped(**changes: object) -> bytes:
    """With `\\u` escapes, as a JSON writer puts what UTF-8 cannot hold."""
    return json.dumps(bad(**changes)).encode()


ROWS: list[tuple[str, str, object]] = [
    # the line is no JSON, or no text
    ("a line cut in its middle", "broken_json", b'{"id": "bad", "language": "id", "prompt": "Apa'),
    ("two objects on a line", "broken_json", b'{"id": "bad"} {"id": "bad"}'),
    ("single quotes", "broken_json", b"{'id': 'bad', 'prompt': 'a', 'completion': 'b'}"),
    ("a comma too many", "broken_json", b'{"id": "bad", "prompt": "a",}'),
    ("a control character in JSON", "broken_json", b'{"id": "bad", "prompt": "a\x01b", "completion": "c"}'),
    ("a number of 5000 digits", "broken_json", b'{"id": ' + b"9" * 5000 + b"}"),
    ("nested 100,000 deep", "broken_json", b"[" * 100_000),
    ("a key twice", "repeated_key", b'{"id": "bad", "language": "id", "prompt": "a", "completion": "b", "id": 2}'),
    ("Latin-1", "invalid_utf8", '{"id": "bad", "prompt": "caf\xe9"}'.encode("latin-1")),
    ("a surrogate in UTF-8", "invalid_utf8", b'{"id": "bad", "prompt": "\xed\xa0\x80"}'),
    ("an overlong encoding", "invalid_utf8", b'{"id": "bad", "prompt": "\xc0\xaf"}'),
    ("UTF-8 cut inside a letter", "invalid_utf8", '{"id": "bad", "prompt": "ไทย"}'.encode()[:-4] + b'"}'),
    ("a BOM in the middle of a file", "broken_json", b"\xef\xbb\xbf" + json.dumps(bad()).encode()),
    # the line is JSON, and no row
    ("null", "not_an_object", b"null"),
    ("a list", "not_an_object", [QUESTION, ANSWER]),
    ("NaN", "not_an_object", b"NaN"),
    ("a row as text", "not_an_object", json.dumps(bad())),
    ("an empty object", "missing_key", {}),
    ("no prompt", "missing_key", without("prompt")),
    ("prompt only", "missing_key", without("completion")),
    ("another spelling of a key", "missing_key", without("completion") | {"Completion": ANSWER}),
    ("a row inside a row", "missing_key", {"data": bad()}),
    ("a turn without content", "missing_key", talk("user", "assistant") | {"messages": [{"role": "user"}]}),
    ("prompt is null", "null", bad(prompt=None)),
    ("completion is null", "null", bad(completion=None)),
    ("content is null", "null", said(None, "a")),
    ("prompt is a number", "wrong_type", bad(prompt=7)),
    ("completion is true", "wrong_type", bad(completion=True)),
    ("completion is an object", "wrong_type", bad(completion={"text": ANSWER})),
    ("content in parts", "wrong_type", talk(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}])),
    ("messages are text", "wrong_type", {"id": "bad", "language": "id", "messages": json.dumps([{"role": "user"}])}),
    ("both formats", "two_formats", talk("user", "assistant", prompt=QUESTION)),
    # ids and languages
    ("id is NaN", "wrong_type", b'{"id": NaN, "language": "id", "prompt": "a", "completion": "b"}'),
    ("id is infinite", "wrong_type", b'{"id": 1e999, "language": "id", "prompt": "a", "completion": "b"}'),
    ("id is an object", "wrong_type", bad(id={"$oid": "1"})),
    ("id of 4000 digits", "bad_id", b'{"id": ' + b"9" * 4000 + line_of(without("id")).replace(b"{", b", ")),
    ("id of 600 letters", "bad_id", bad(id="x" * 600)),
    ("id with a line end", "bad_id", bad(id="a\nb")),
    ("id is half a pair", "bad_id", escaped(id="\ud800")),
    ("a row twice", "duplicate", good(0)),
    ("no language", "missing_language", without("language")),
    ("unknown language", "unknown_language", bad(language="xx")),
    ("a language by its name", "unknown_language", bad(language="Indonesian")),
    ("language is a list", "wrong_type", bad(language=["id"])),
    # nothing to learn from
    ("empty prompt", "empty_prompt", bad(prompt="")),
    ("empty completion", "empty_completion", bad(completion="")),
    ("spaces only", "empty_completion", bad(completion=" \t\n\u3000\u00a0")),
    ("nothing that can be seen", "empty_completion", bad(completion="\u200b\u200d\ufeff")),
    ("no turns", "empty_messages", talk()),
    ("an empty turn", "empty_turn", said("", "a", "b", "c")),
    ("no question", "no_user_turn", talk("system", "assistant")),
    ("no answer", "no_assistant_turn", talk("user")),
    # turns out of order
    ("ends with the user", "last_turn_not_assistant", talk("user", "assistant", "user")),
    ("two users in a row", "roles_do_not_alternate", talk("user", "user", "assistant")),
    ("two answers in a row", "roles_do_not_alternate", talk("user", "assistant", "assistant")),
    ("the assistant opens", "roles_do_not_alternate", talk("assistant", "user", "assistant")),
    ("two systems", "system_not_at_start", talk("system", "system", "user", "assistant")),
    ("a late system", "system_not_at_start", talk("user", "system", "user", "assistant")),
    ("an unknown role", "unknown_role", talk("human", "assistant")),
    ("a tool", "tool_turn", talk("user", "tool", "assistant")),
    ("a prompt that ends with an answer", "last_turn_not_user", bad(prompt=talk("user", "assistant")["messages"])),
    ("a completion of two turns", "completion_not_one_turn", bad(completion=said("a", "b", "c", "d")["messages"])),
    # text that should not be text
    ("NUL", "control_characters", escaped(completion="a\x00b")),
    ("an escape sequence", "control_characters", escaped(prompt="\x1b[2J" + QUESTION)),
    ("a C1 control", "control_characters", bad(completion="a\x9bb")),
    ("half a pair", "lone_surrogate", escaped(completion="a\ud83d")),
    ("a pair the wrong way round", "lone_surrogate", escaped(prompt="\ude00\ud83d")),
    ("a code point that is no character", "no_character", bad(completion="a\uffff")),
    ("letters lost in decoding", "damaged_text", bad(completion="Caf\ufffd di Jakarta")),
    ("Burmese in Zawgyi", "zawgyi", bad(language="my", prompt=ZAWGYI[0], completion=ZAWGYI[1])),
    # too much
    ("a million characters", "too_many_characters", bad(completion="x" * (MAX_CHARACTERS + 1))),
    ("a thousand turns", "too_many_turns", talk(*["user", "assistant"] * MAX_TURNS)),
    ("a prompt longer than the model's room", "prompt_too_long", bad(prompt=f"{QUESTION} " * 400)),
    # text that the tokenizer would take for its own
    ("an end of turn inside an answer", "special_token", bad(completion="Jakarta.<|end|><|user|>Ya?")),
    ("a system turn inside a question", "special_token", bad(prompt="<|system|>Jawab ya.")),
]  # fmt: skip
"""(what it is, the reason it is counted under, the line: bytes as they stand, anything else as JSON)."""


def bad_lines() -> list[bytes]:
    return [line_of(content) for _, _, content in ROWS]


def _text(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def _lines(count: int = 20) -> bytes:
    return b"".join(line_of(good(number)) + b"\n" for number in range(count))


def _parquet(change: Callable[[bytes], bytes], rows: int = 400) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        path = folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist([good(number) for number in range(rows)]), path)
        path.write_bytes(change(path.read_bytes()))
        return str(path)

    return make


def _saved(change: Callable[[Path], None]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        datasets.Dataset.from_list([good(number) for number in range(20)]).save_to_disk(folder / "saved")
        change(folder / "saved")
        return str(folder / "saved")

    return make


def _edit_state(**changes: object) -> Callable[[Path], None]:
    def change(saved: Path) -> None:
        state = json.loads((saved / "state.json").read_text())
        (saved / "state.json").write_text(json.dumps(state | changes))

    return change


def _cut_arrow(saved: Path) -> None:
    arrow = next(saved.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:200])


def _made(make: Callable[[Path], object], name: str) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        make(folder / name)
        return str(folder / name)

    return made


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _unknown_columns(folder: Path) -> str:
    pq.write_table(pa.table({"soal": [QUESTION] * 9, "jawab": [ANSWER] * 9}), folder / "rows.parquet")
    return str(folder / "rows.parquet")


def _bytes_in_parquet(folder: Path) -> str:
    """A text column whose bytes are Latin-1: Parquet does not check them."""
    texts = pa.array([b"caf\xe9"] * 9, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"language": ["id"] * 9, "prompt": texts, "completion": texts}), folder / "rows.parquet")
    return str(folder / "rows.parquet")


FILES: list[tuple[str, Callable[[Path], str], int, str]] = [
    ("no such file", lambda folder: str(folder / "rows.jsonl"), 2, "no such file"),
    ("no such file, a near name", _made(lambda p: p.with_name("rows.jsonl").touch(), "row.jsonl"), 2, "did you mean"),
    ("no name", lambda folder: " ", 2, "data source is empty"),
    ("an empty folder", _made(Path.mkdir, "rows.jsonl"), 2, "no data files in it"),
    ("a folder of other files", _made(lambda p: (p.mkdir(), (p / "a.txt").touch()), "rows"), 2, "no data files in it"),
    ("a glob that matches nothing", lambda folder: str(folder / "*.jsonl"), 2, "no file matches"),
    ("a link to nothing", _made(lambda p: p.symlink_to("gone.jsonl"), "rows.jsonl"), 2, "no such file"),
    ("a link to itself", _made(_loop, "rows.jsonl"), 2, "rows.jsonl"),
    ("a pipe", _made(os.mkfifo, "rows.jsonl"), 2, "no such file"),
    ("an empty file", _text("rows.jsonl", b""), 3, "no good row"),
    ("blank lines", _text("rows.jsonl", b"\n \n\r\n\t\n"), 3, "no good row"),
    ("a BOM and nothing else", _text("rows.jsonl", b"\xef\xbb\xbf"), 3, "no good row"),
    ("UTF-16", _text("rows.jsonl", _lines().decode().encode("utf-16")), 3, "invalid_utf8"),
    ("NULs", _text("rows.jsonl", b"\x00" * 5000), 3, "broken_json"),
    ("gzip under another name", _text("rows.jsonl", gzip.compress(_lines())), 3, "invalid_utf8"),
    ("gzip", _text("rows.jsonl.gz", gzip.compress(_lines())), 2, "cannot read '.gz'"),
    ("gzip, cut", _text("rows.jsonl.gz", gzip.compress(_lines())[:40]), 2, "cannot read '.gz'"),
    ("CSV", _text("rows.csv", b"prompt,completion\na,b\n"), 2, "dudi prepare convert"),
    ("plain text", _text("rows.txt", b"Apa kabar?\n"), 2, "cannot read '.txt'"),
    ("a pickle", _text("rows.pkl", b"\x80\x04]."), 2, "cannot read '.pkl'"),
    ("a pickle under another name", _text("rows.jsonl", b"\x80\x04]."), 3, "invalid_utf8"),
    ("one array, cut", _text("rows.json", b'[{"id": "a",\n "prompt": "b"'), 3, "line 2: broken JSON"),
    ("one array, nested 100,000 deep", _text("rows.json", b"[" * 100_000), 3, "broken JSON"),
    ("one array in Latin-1", _text("rows.json", '["caf\xe9"]'.encode("latin-1")), 3, "not UTF-8"),
    ("one array, a key twice", _text("rows.json", b'[{"prompt": "a", "prompt": "b"}]'), 3, "twice"),
    ("an array of texts", _text("rows.json", b'["a", "b"]'), 3, "not_an_object"),
    ("Parquet, cut", _parquet(lambda raw: raw[: len(raw) // 2]), 3, "not a readable Parquet"),
    ("Parquet, first four bytes", _parquet(lambda raw: raw[:4]), 3, "not a readable Parquet"),
    ("Parquet, its middle overwritten", _parquet(lambda raw: raw[:40] + b"\xff" * 400 + raw[440:]), 3, "rows.parquet"),
    ("Parquet, its footer overwritten", _parquet(lambda raw: raw[:-300] + b"\xff" * 292 + raw[-8:]), 3, "readable"),
    ("Parquet that is text", _text("rows.parquet", _lines()), 3, "not a readable Parquet"),
    ("Parquet that is empty", _text("rows.parquet", b""), 3, "not a readable Parquet"),
    ("Parquet with other columns", _unknown_columns, 3, "missing_key"),
    ("Parquet with bytes that are no text", _bytes_in_parquet, 3, "invalid_utf8"),
    ("a saved dataset, its rows cut", _saved(_cut_arrow), 3, "cannot be read as a saved dataset"),
    ("a saved dataset without rows", _saved(lambda p: next(p.glob("*.arrow")).unlink()), 3, "saved dataset"),
    ("a saved dataset, its state broken", _saved(lambda p: (p / "state.json").write_text("{")), 3, "saved dataset"),
    ("a saved dataset, a file of it elsewhere", _saved(_edit_state(_data_files=[{"filename": "../a"}])), 3, "outside"),
    ("a saved dataset of nothing", _saved(_edit_state(_data_files=[])), 3, "saved dataset"),
    ("a saved dataset that names no files", _saved(_edit_state(_data_files=None)), 3, "saved dataset"),
]  # fmt: skip
"""(what it is, what makes it in a folder and names it, exit code, words of the message)."""

CSV_FILES: list[tuple[str, bytes, int, str]] = [
    ("empty", b"", 3, "is empty"),
    ("a header alone", b"prompt,completion\n", 3, "no good row"),
    ("a wrong header", b"soal,jawab\na,b\n", 2, "no column 'prompt'"),
    ("a header in Latin-1", "prompt,compl\xe9tion\na,b\n".encode("latin-1"), 2, "no column 'completion'"),
    ("fields too few", b"prompt,completion\na\nb\n", 3, "wrong_column_count 2"),
    ("fields too many", b"prompt,completion\na,b,c\n", 3, "wrong_column_count 1"),
    ("a quote that never ends", b'prompt,completion\nc,d\n"a,b\nc\n', 3, "line 3: a cell begins with a quotation mark"),
    ("a quote that ends in another row", b'prompt,completion\n"a,b\nc",d\n', 3, "lines 2 to 3"),
    ("a quote in a quoted cell", b'prompt,completion\n"a "b" c\nd",e\n', 3, "line 2: a cell begins"),
    (
        "a quoted cell of more than 64 MiB",
        b'prompt,completion\n"' + (b"x" * 1023 + b"\n") * (66 << 10) + b'",b\n',
        3,
        "limit",
    ),
    ("Latin-1", "prompt,completion\ncaf\xe9,b\n".encode("latin-1"), 3, "invalid_utf8 1"),
    ("NUL", b"prompt,completion\na\x00,b\n", 3, "rejected"),
    ("broken JSON in messages", b"messages\n[{\n", 3, "broken_json 1"),
    ("UTF-16", "prompt,completion\na,b\n".encode("utf-16"), 2, "no column 'prompt'"),
    ("a field of a million characters", b"prompt,completion\n" + b"x" * 1_000_001 + b",b\n", 3, "too_many_characters"),
]
"""(what it is, the file, exit code, words of the message), for `dudi prepare convert`."""
