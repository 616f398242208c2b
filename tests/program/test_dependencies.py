"""No version with a hole that is known and that matters here may be installed: an audit that needs no network.

`pip-audit` asks a service of its own and is the better tool where that can be reached; this list is what was read by
hand, with the version that closes each hole. Raise the bound in pyproject.toml before adding a line here.
"""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import dudi

HOLES: list[tuple[str, str, str, str]] = [
    # what dudi asks for itself
    ("torch", "CVE-2025-32434", "2.6.0", "weights_only=True runs code"),
    ("torch", "CVE-2025-2953", "2.7.1", "mkldnn_max_pool2d ends the process"),
    ("torch", "CVE-2025-3730", "2.8.0", "ctc_loss ends the process"),
    ("torch", "CVE-2026-24747", "2.10.0", "weights_only=True corrupts memory"),
    ("transformers", "CVE-2023-6730", "4.36.0", "a pickle beside a RAG model"),
    ("transformers", "CVE-2024-11392", "4.48.0", "a pickle in a configuration"),
    ("transformers", "CVE-2024-11393", "4.48.0", "a pickle in a model"),
    ("transformers", "CVE-2024-11394", "4.48.0", "a pickle in a model"),
    ("transformers", "CVE-2025-6638", "4.53.0", "a regular expression that never ends"),
    ("transformers", "CVE-2026-1839", "5.0.0rc3", "Trainer unpickles rng_state.pth"),
    ("transformers", "CVE-2026-4372", "5.3.0", "a config names code on the hub, and it runs"),
    ("transformers", "CVE-2026-5241", "5.5.0", "a config turns trust_remote_code on"),
    ("transformers", "CVE-2026-9856", "5.10.0", "names of chat templates lead out of the folder"),
    ("jinja2", "CVE-2024-56326", "3.1.5", "out of the sandbox by str.format"),
    ("jinja2", "CVE-2025-27516", "3.1.6", "out of the sandbox by the filter attr"),
    ("pyarrow", "CVE-2023-47248", "14.0.1", "an extension type is a pickle"),
    ("pyarrow", "CVE-2026-25087", "23.0.1", "memory used after it was freed"),
    ("numpy", "CVE-2021-41496", "1.22.0", "a buffer that overflows"),
    ("pyyaml", "CVE-2020-14343", "5.4", "full_load runs code"),
    ("setuptools", "CVE-2025-47273", "78.1.1", "a download leads out of its folder"),
    # what comes with it
    ("requests", "CVE-2024-47081", "2.32.4", "passwords of .netrc go to another host"),
    ("urllib3", "CVE-2025-66471", "2.6.0", "a small answer fills the memory"),
    ("tqdm", "CVE-2024-34062", "4.66.3", "options on the command line run code"),
    ("filelock", "CVE-2025-68146", "3.20.1", "a link in place of the lock"),
    ("pillow", "CVE-2023-50447", "10.2.0", "ImageMath runs code"),
    ("werkzeug", "CVE-2024-34069", "3.0.3", "the debugger runs code for others"),
    ("h11", "CVE-2025-43859", "0.16.0", "one request is read as two"),
]
"""(package, name of the hole, the version that closes it, what it does)."""

OPEN: list[tuple[str, str, str, str]] = [
    (
        "accelerate",
        "GHSA-4j2p-28q2-5m79",
        "load_checkpoint_in_model, load_checkpoint_and_dispatch",
        "an index of weights leads out of the folder; 1.15.0 still does that, and dudi screens indexes itself",
    ),
]
"""(package, name of the hole, the functions that have it, what they do): no version closes it; none is called."""


@pytest.fixture(scope="module")
def wanted():
    """Every requirement of pyproject.toml, the ones to build it included."""
    content = tomllib.loads((Path(dudi.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    texts = [*content["build-system"]["requires"], *content["project"]["dependencies"]]
    texts += [text for extra in content["project"]["optional-dependencies"].values() for text in extra]
    found = [Requirement(text) for text in texts]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def floor(specifier):
    """The lowest version that a requirement allows."""
    return max((Version(part.version) for part in specifier if part.operator in (">=", "==", "~=")), default=None)


@pytest.mark.parametrize(("package", "hole", "closed", "what"), HOLES, ids=[f"{p}-{h}" for p, h, _, _ in HOLES])
def test_no_version_with_a_known_hole(wanted, package, hole, closed, what):
    if package in wanted:
        lowest = floor(wanted[package])
        assert lowest is not None and lowest >= Version(closed), f"pyproject.toml lets {package} have {hole}: {what}"
    if package == "setuptools":  # used to build, in an environment of its own
        return
    try:
        installed = Version(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed >= Version(closed), f"{package} {installed} has {hole}: {what}"


@pytest.mark.parametrize(("package", "hole", "functions", "what"), OPEN, ids=[f"{p}-{h}" for p, h, _, _ in OPEN])
def test_nothing_calls_what_has_an_open_hole(package, hole, functions, what):
    for file in Path(dudi.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not any(name in text for name in functions.split(", ")), f"{file}: {hole} of {package}: {what}"


def test_every_requirement_of_ours_has_a_floor(wanted):
    open_ended = {name for name, specifier in wanted.items() if floor(specifier) is None}
    on_purpose = {"dudi", "trackio", "types-pyyaml", "types-regex"}  # ourselves, and what no run reads files with
    assert open_ended <= on_purpose
