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

    The run's command, as `env.json` has it, names its recipe: that tells base files from the recipe itself.
    """
    found: list[SettingLine] = []
    section, inner = "", ""
    for line in text.splitlines():
        if match := _LINE.match(line):
            places = [section, inner][: len(match["indent"]) // 2]
            key = ".".join([*(place for place in places if place), match["key"]])
            found.append(SettingLine(key, match["value"].strip(), match["origin"].strip()))
        elif opened := re.fullmatch(r"(?P<indent> *)(?P<name>[\w-]+):", line):
            section, inner = (section, opened["name"]) if opened["indent"] else (opened["name"], "")
    files = [match["file"] if (match := _FILE.fullmatch(setting.origin)) else "" for setting in found]
    words: set[str] = set()
    if isinstance(command, list) and len(command) > 2 and command[1] in _VERBS:
        words = {str(word) for word in command[2:]}
    # `mini/dudi` is `recipes/mini/dudi.yaml`.
    own = {file for file in files if {file, file.removeprefix("recipes/").removesuffix(".yaml")} & words} - {""}
    if own:
        others = [bool(file) and file not in own for file in files]
        return [dataclasses.replace(setting, base=base) for setting, base in zip(found, others, strict=True)]
    return found
