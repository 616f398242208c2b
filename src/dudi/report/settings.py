"""The lines of `resolved.yaml`: each value, and who set it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

_LINE = re.compile(
    r"^(?P<indent> *)(?P<key>[\w.@-]+):(?P<value>.*?)\s+# (?P<origin>default|method|recipe.*|command line)$"
)
_FILE = re.compile(r"recipe (?P<file>.+):\d+")
_VERBS = ("train", "plan")


@dataclasses.dataclass(frozen=True, slots=True)
class SettingLine:
    """One line of `resolved.yaml`.

    Attributes:
        key: With its section and a dot.
        value: As it was written.
        origin: `default`, `method`, `recipe FILE:LINE` or `command line`; empty when the file does not say.
        base: Whether the file of its origin is one that the recipe extends, as far as the command tells.
    """

    key: str
    value: str
    origin: str
    base: bool = False

    @property
    def given(self) -> bool:
        """Whether a person wrote it, and not the package."""
        return self.origin not in ("default", "method", "")

    @property
    def source(self) -> str:
        """The origin in words: `base file recipes/base/mini.yaml:2`."""
        return self.origin.replace("recipe", "base file", 1) if self.base else self.origin


def read_settings(text: str, command: Any = None) -> list[SettingLine]:
    """The lines of `resolved.yaml` with the comment that says where each value came from.

    Args:
        text: The file.
        command: The run's command as `env.json` has it: its recipe tells base files from the recipe itself.
    """
    found: list[SettingLine] = []
    section, inner = "", ""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            if opened := re.fullmatch(r"(?P<indent> *)(?P<name>[\w-]+):", line):
                section, inner = (section, opened["name"]) if opened["indent"] else (opened["name"], "")
            continue
        places = [section, inner][: len(match["indent"]) // 2]
        key = ".".join([*(place for place in places if place), match["key"]])
        found.append(SettingLine(key, match["value"].strip(), match["origin"].strip()))
    return _with_base(found, command)


def _with_base(found: list[SettingLine], command: Any) -> list[SettingLine]:
    files = [match["file"] if (match := _FILE.fullmatch(setting.origin)) else None for setting in found]
    own = {file for file in files if file is not None and _is_recipe(file, command)}
    if not own:
        return found
    pairs = zip(found, files, strict=True)
    return [dataclasses.replace(setting, base=file is not None and file not in own) for setting, file in pairs]


def _is_recipe(file: str, command: Any) -> bool:
    """Whether the command names this file: `mini/dudi` is `recipes/mini/dudi.yaml`."""
    if not isinstance(command, list) or len(command) < 3 or command[1] not in _VERBS:
        return False
    words = [str(word) for word in command[2:]]
    return file in words or file.removeprefix("recipes/").removesuffix(".yaml") in words
