"""What is shipped is what is there."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_list_of_packages_matches_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    code = {".".join(p.parent.relative_to(ROOT / "src").parts) for p in (ROOT / "src").rglob("__init__.py")}
    assert set(listed) == code | {"dudi.recipes"}  # the recipes' folders are data of one package


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
