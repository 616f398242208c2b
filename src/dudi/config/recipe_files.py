"""Where the shipped recipes lie: `recipes/` of a checkout, `dudi/recipes/` of an installed package."""

from __future__ import annotations

from pathlib import Path

from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError, DudiError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
BASES = "base"
"""The folder of shared bases, which are no recipes by themselves."""
STUDIES = "study"
"""The folder of studies: grids of runs, for `dudi study`."""
LAUNCHERS = "accelerate"
"""The folder of config files for `accelerate launch`."""
STACKS = "stack"
"""The folder of recipes for `dudi stack`."""


def recipes_folder() -> Path:
    """The folder of the shipped recipes.

    Raises:
        ConfigError: neither the package nor a checkout around it has them.
    """
    for folder in (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes"):
        if (folder / BASES).is_dir():
            return folder.resolve()  # a checkout's is a link
    raise ConfigError(f"{_PACKAGE}: the shipped recipes are missing; reinstall dudi, or give a recipe's full path")


def list_recipes(*, stacks: bool = False) -> list[str]:
    """Names of the shipped recipes, sorted: `smollm2`, `table2/dudi`, ...; those of `dudi stack` where asked for."""
    folder = recipes_folder()
    names = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    if stacks:
        return sorted(name.as_posix() for name in names if name.parts[0] == STACKS and BASES not in name.parts)
    return sorted(name.as_posix() for name in names if name.parts[0] not in (BASES, STUDIES, STACKS, LAUNCHERS))


def find_recipe(name: str | Path) -> Path:
    """The file at a path, or of a shipped recipe (`table2/dudi`; `recipes/table2/dudi.yaml` works anywhere).

    Raises:
        ConfigError: no such file and no such recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{name}: is a folder; name the recipe's YAML file")
    hint = ""
    if not path.is_absolute():
        shipped = _shipped_name(path)
        names = [*list_recipes(), *list_recipes(stacks=True)]
        if shipped in names:
            return recipes_folder() / f"{shipped}.yaml"
        hint = did_you_mean(shipped, names) or "; `dudi ls recipes` lists the shipped ones"
    raise ConfigError(f"{name}: no such recipe{hint}")


def _shipped_name(path: Path) -> str:
    """What a shipped file would be called: `recipes/table2/dudi.yaml` and `table2/dudi` are the same."""
    return path.as_posix().removeprefix("recipes/").removesuffix(".yaml")


def find_study(name: str | Path) -> Path:
    """The file of a study: one that is there, or a shipped one's (`study/stack/own/table`), as of `find_recipe`.

    Returns:
        The file; where there is neither, the path as it was given: whoever reads it says so.

    Raises:
        ConfigError: no such file, and a shipped study has nearly the name.
    """
    path = Path(name)
    if path.exists() or path.is_absolute():
        return path
    folder, shipped = recipes_folder(), _shipped_name(path)
    files = (folder / STUDIES).rglob("*.yaml")
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files)
    if shipped in names:
        return folder / f"{shipped}.yaml"
    if hint := did_you_mean(shipped, names):
        raise ConfigError(f"{name}: no such study{hint}")
    return path


STACK_SECTIONS = ("encoder", "llm", "start")
STUDENT_SECTIONS = ("student", "teachers", "benchmark")
"""Sections that recipes of the one system have, and those of the other have not."""


def refuse_other_verbs(name: str, *, stacks: bool) -> None:
    """Refuse what is written behind a verb where a recipe's name should be, and a recipe of the other system.

    Raises:
        ConfigError: a key, or a recipe that another verb reads; or as in `find_recipe`.
    """
    if "=" in name and not Path(name).exists():
        raise ConfigError(f"'{name}' is a key, not a recipe; name the recipe before it")
    file, shipped = find_recipe(name).resolve(), recipes_folder().resolve()
    if file.is_relative_to(shipped):
        other = file.is_relative_to(shipped / STACKS) is not stacks
    else:
        other = _has_section(file, STUDENT_SECTIONS if stacks else STACK_SECTIONS)
    if other and stacks:
        raise ConfigError(f"{name}: is a recipe of `dudi train`")
    if other:
        stages = "adapt, align, teach, distill, finetune; dudi plan --stage"
        raise ConfigError(f"{name}: is a recipe of `dudi stack` ({stages})")


def _has_section(file: Path, sections: tuple[str, ...]) -> bool:
    """Whether a file has one of these sections itself; what cannot be read is said by whoever reads it."""
    try:
        root = read_yaml(file).value
    except DudiError:
        return False
    return isinstance(root, dict) and any(key.partition(".")[0] in sections for key in root)
