"""The files of this package in, whole files out."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from dudi.errors import EnvironmentFault


def resource(name: str) -> str:
    """A file of this package."""
    return resources.files("dudi.report").joinpath(name).read_text(encoding="utf-8")


def template(name: str, *, autoescape: bool, **options: Any) -> Any:
    """A template of this package; a variable that is not given is an error."""
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    return environment.get_template(name)


def write_text(target: Path, text: str) -> Path:
    """Write a file whole or not at all.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    beside = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in somebody's data must not cost the report.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(beside, target)
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror}") from error
    return target
