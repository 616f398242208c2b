"""The registry: nobody else knows a benchmark by its name, and what an entry says is so."""

import ast
import dataclasses
import re
from pathlib import Path

import dudi
from dudi.evaluation.benchmarks import BENCHMARKS, find
from dudi.evaluation.harness.options import Options

ROOT = Path(dudi.__file__).parent
WORDS = {"program/lm_eval.py", "program/seahelm.py", "program/seahelm_options.py"}
"""The words of `dudi eval` for one benchmark each."""


def named_in(file, names):
    """The names that a file's code has, as words of its texts (docstrings aside) or as constants of the registry."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
    words = {word for text in texts if isinstance(text, str) for word in re.findall(r"[\w-]+", text)}
    return names & (words | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def test_no_code_outside_names_a_benchmark_or_what_only_one_has():
    names = {*BENCHMARKS, "CLDR_QA", "LM_EVAL", "SEAHELM", "num_fewshot"}
    names |= {version for one in BENCHMARKS.values() for version in one.versions}
    files = {file.relative_to(ROOT).as_posix(): file for file in ROOT.rglob("*.py")}
    core = {place for place in files if not place.startswith(("evaluation/", "data/"))} - WORDS
    found = {place: named for place in sorted(core) if (named := named_in(files[place], names))}
    assert found == {"program/eval.py": {"seahelm"}}  # the module of its words


def test_the_options_of_an_entry_are_those_that_its_questions_take():
    fields = {field.name for field in dataclasses.fields(Options)}
    assert {*BENCHMARKS["lm-eval"].options} == fields - {"batch_size"}


def test_an_entry_tells_how_it_was_asked():
    how = find("lm-eval").how
    assert how({}, False) == "examples as the tasks have them"
    assert how({"num_fewshot": 2, "apply_chat_template": True}, False) == "2 examples, chat template"
    assert how({"num_fewshot": 2}, True) == "2 examples, chat template off"
    assert how({"apply_chat_template": True}, True) == "examples as the tasks have them, chat template on"


def test_a_file_has_an_entry_too():
    assert not find("my.jsonl").served and find("seahelm").served
