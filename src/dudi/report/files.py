"""The files of this package in, whole files out."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


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
