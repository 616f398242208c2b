"""What is shipped is what is there."""

import ast
import importlib
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
