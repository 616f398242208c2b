"""What is shipped is what is there."""

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


@pytest.mark.parametrize("lane", ["tests/trust", "tests/real"])
def test_the_lanes_that_run_by_hand_can_be_collected(lane):
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", lane],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:]
