"""What is shipped is what is there."""

import ast
import importlib
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_list_of_packages_matches_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    code = {".".join(p.parent.relative_to(ROOT / "src").parts) for p in (ROOT / "src").rglob("__init__.py")}
    assert set(listed) == code | {"dudi.recipes"}  # the recipes' folders are data of one package


@pytest.mark.slow
def test_an_editable_install_is_found_from_the_folder_of_the_clone(tmp_path):
    """Python started beside a clone called `dudi` takes that folder for a package, unless ours lies on its path."""
    pytest.importorskip("setuptools", minversion="78.1.1")
    clone, wheel, site = tmp_path / "dudi", tmp_path / "wheel", tmp_path / "site"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", clone / "src", symlinks=True, ignore=leave)
    shutil.copytree(ROOT / "recipes", clone / "recipes")
    wheel.mkdir()
    build = f"from setuptools.build_meta import build_editable; build_editable({str(wheel)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as opened:
        opened.extractall(site)
    # As an interpreter does: the current folder in front, then what `site` finds in its .pth files.
    code = f"import sys, site; sys.path[:0] = ['']; site.addsitedir({str(site)!r}); from dudi import DudiTrainer as T"
    code += "; import dudi; print(dudi.__file__)"
    bare = [sys.executable, "-S", "-c", f"import sys; sys.path += {other_packages()!r}; {code}"]
    found = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == str(clone / "src" / "dudi" / "__init__.py"), found.stderr[-2000:]


def other_packages():
    """Where dependencies lie, without the files that put a dudi on the path."""
    return [path for path in sys.path if path.endswith("site-packages")]


def test_import_is_light():
    names = "dudi, dudi.program.cli, dudi.objective.methods"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_pickle_no_remote_code_no_path_of_a_machine():
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "trust_remote_code=True" not in text, path
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
        assert "/tmp/" not in text and "/work/" not in text, path


def imports_of(file):
    """(module, name or None) of every import in a file, those in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module, alias.name) for alias in node.names)


def reached(file):
    """Module and name of `module.name`, read or replaced, where `module` is one of ours that the same function imports.

    `tests/trust` plants faults in our functions: in one that is gone it would plant nothing, and prove nothing.
    """
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        ours = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "dudi":
                names = ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
                ours |= {name: module for name, module in names if is_module(module)}
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
                yield ours[node.value.id], node.attr


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package: a function or a class
        return False


def test_no_argument_of_make_test_lies_in_another():
    """pytest drops one that does: the committed losses were named behind `tests`, and did not run."""
    said = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in said.splitlines() if "loadgroup" in line)
    places = [word.partition("::")[0] for word in shlex.split(line) if word.startswith("tests")]
    assert places[-1] == "tests/trust/test_references.py" and (ROOT / places[-1]).is_file()
    assert not any(Path(one).is_relative_to(two) for one in places for two in places if one != two)
    there = {file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("test_*.py")}
    taken = {file for file in there for place in places if Path(file).is_relative_to(place)}
    assert {Path(file).parts[1] for file in there - taken} == {"trust", "real"}


@pytest.mark.parametrize("folder", ["benchmarks", "scripts", "tests/trust", "tests/real"])
def test_what_make_test_does_not_run_finds_what_it_imports(folder):
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    shared = [ROOT, ROOT / "tests", *(ROOT / path for path in config["pythonpath"])]
    for file in (ROOT / folder).rglob("*.py"):
        for module, name in imports_of(file):
            if module.partition(".")[0] == "dudi":
                there = name is None or hasattr(importlib.import_module(module), name)
                assert there or importlib.util.find_spec(f"{module}.{name}"), (file, module, name)
            elif module.partition("_")[0] == "test":
                assert any((path / f"{module}.py").is_file() for path in shared), (file, module)
        for module, name in reached(file):
            assert hasattr(importlib.import_module(module), name), (file, module, name)
