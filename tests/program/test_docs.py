"""What the README and the docs say can be done: their Python imports what is there, their commands and keys exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from dudi.config.recipe_files import list_recipes
from dudi.distill.recipe import DUDI
from dudi.program.cli import VERBS
from dudi.stacking.recipe import STACK

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = {"benchmark.md", "cldr.md", "eval.md"}
"""Pages whose Python runs as it stands, with the models of the package."""


def python_blocks():
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            yield pytest.param(page, block, id=f"{page.stem}-{number}")


def command_lines():
    """(page, words) of each line of a code block that calls `dudi`; a backslash at its end joins the next."""
    for page in PAGES:
        text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
        shell = False
        for line in text.splitlines():
            shell = line == "```sh" or (shell and line != "```")
            if found := re.fullmatch(r"( {4}|\$ | {4}\$ |)dudi ([a-z].*)", line):
                if not found[1] and not shell:  # a sentence that begins so
                    continue
                yield page, shlex.split(found[2].partition("  #")[0].partition("   (")[0], comments=True)


@pytest.mark.parametrize(("page", "block"), python_blocks())
def test_python_imports_what_is_there(page, block):
    wanted = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom | ast.Import)]
    assert wanted or page.name not in RUN
    for node in wanted:
        exec(ast.unparse(node), {})


@pytest.mark.parametrize("name", sorted(RUN))
def test_python_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, name, "exec"), {})


def test_commands_are_verbs():
    lines = list(command_lines())
    assert len(lines) > 40
    unknown = [(page.name, words) for page, words in lines if words[0] not in VERBS]
    assert not unknown


def test_keys_of_commands_exist():
    known = {*DUDI.known_keys(), *DUDI.sections, *STACK.known_keys(), *STACK.sections}
    given = [
        (page.name, word)
        for page, words in command_lines()
        if words[0] in ("train", "plan", "quickstart", "stack")
        for word in words[1:]
        if re.match(r"[a-z_.]+=", word) and not word.startswith("--")
    ]
    assert len(given) > 10
    assert not [(page, word) for page, word in given if word.partition("=")[0] not in known]


def test_recipes_of_commands_exist():
    names = {*list_recipes(), *list_recipes(stacks=True)}
    given = [words[1] for _, words in command_lines() if words[0] in ("train", "plan") and len(words) > 1]
    missing = [name for name in given if "/" in name and not name.endswith(".yaml") and name not in names]
    assert given and not missing
