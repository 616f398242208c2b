"""What a command line needs beside its verbs: parsing, finding a verb, and turning errors into exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dudi.errors import INTERRUPTED, ConfigError, DudiError, did_you_mean, plain

T = TypeVar("T")
ENVIRONMENT = 1
# Classes of torch, by name: the command line does not import torch.
_MEMORY = {"OutOfMemoryError"}
_DISTRIBUTED = {"DistError", "DistBackendError", "DistNetworkError", "DistStoreError"}
# gloo has no class of its own: its errors are told from others by their words.
_PEER_GONE = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are `ConfigError`s: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        flag = message.partition("unrecognized arguments: --")[2].split()
        if flag:
            message = f"--{flag[0].partition('=')[0]} is not an option{self._hint(*flag[0].partition('=')[::2])}"
        message = message.replace("RECIPE, key=value", "RECIPE")
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")

    def _hint(self, name: str, value: str) -> str:
        """What is meant instead, where that can be said: only some verbs take keys of a recipe."""
        if "[key=value" in self.format_usage():
            return f"; keys of the recipe are written {name}={value or 'VALUE'}"
        return did_you_mean(f"--{name}".replace("_", "-"), self._option_string_actions)

    def dashed(self, words: Iterable[str]) -> list[str]:
        """The words with dashes for the underscores of long options, which other programs write (`--batch_size`)."""
        found = []
        for word in words:
            name, equals, value = word.partition("=")
            known = name.startswith("--") and name.replace("_", "-") in self._option_string_actions
            found.append(f"{name.replace('_', '-')}{equals}{value}" if known else word)
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Verb:
    """A verb: its line in --help, its arguments, and what it does."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


@dataclasses.dataclass(frozen=True, slots=True)
class Kinds:
    """A verb that comes in several kinds: `dudi prepare cldr`."""

    help: str
    kinds: Mapping[str, Verb]


def late(module: str, name: str, *more: Any) -> Callable[[Any], Any]:
    """A function of a module, which is imported when it is called: with what it is given, and with `more` behind."""
    return lambda given: getattr(importlib.import_module(module), name)(given, *more)


def output_folder(word: str) -> Path:
    """The `type` of an option that names a folder to write into: a file in its place is refused before any work."""
    path = _below_folders(word)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{word} is a file; name a folder")
    return path


def output_file(word: str) -> Path:
    """The `type` of an option that names a file to write: a folder in its place is refused before any work."""
    path = _below_folders(word)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{word} is a folder; name a file")
    return path


def _below_folders(word: str) -> Path:
    path = Path(os.path.expanduser(word))
    there = next((parent for parent in path.parents if parent.exists()), None)
    if there is not None and not there.is_dir():
        raise argparse.ArgumentTypeError(f"{word}: {there} is a file, and holds no folder")
    return path


def whole_number(least: int) -> Callable[[str], int]:
    """The `type` of an option that is a whole number, at least so large."""

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"'{word}' is no whole number") from error
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {word}")
        return number

    return read


def words_of(given: Iterable[str] | None) -> list[str] | None:
    """The words of an option that takes several: `id th`, `id,th` and `id, th` are two; None where none is left."""
    words = (word.strip() for part in given or () for word in part.split(","))
    return [word for word in words if word] or None


def say(text: str) -> int:
    """Write lines to standard output; 0, the exit code of a verb that has said what it had to."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()
    return 0


def dispatch(words: list[str], program: str, verbs: Mapping[str, Verb | Kinds], about: str) -> int:
    """Find the verb (and its kind) among those that may follow what has been read (`dudi prepare`), and run it.

    `about` is a line for --help. Returns the verb's exit code; 2 when a kind is missing.
    """
    if not words or words[0] in ("-h", "--help"):
        what = "KIND" if " " in program else "VERB"
        lines = [f"  {name:<14}{verb.help}" for name, verb in verbs.items()]
        more = f"{program} {what} --help tells more; --debug shows tracebacks."
        say("\n".join([f"usage: {program} {what} ...", "", about, "", *lines, "", more]))
        return 0 if words or " " not in program else ConfigError.exit_code
    if words[0] not in verbs:
        raise ConfigError(f"{program}: there is no '{words[0]}'{did_you_mean(words[0], verbs)} (see {program} --help)")
    verb, name = verbs[words[0]], f"{program} {words[0]}"
    if isinstance(verb, Kinds):
        return dispatch(words[1:], name, verb.kinds, verb.help)
    parser = Parser(name, description=verb.help)
    verb.arguments(parser)
    given = parser.parse_intermixed_args(parser.dashed(words[1:]))
    for option, value in vars(given).items():  # a shell leaves `--output=~/run` as it is
        setattr(given, option, _at_home(value))
    return verb.run(given)


def _at_home(value: Any) -> Any:
    """Files' names without their `~`; a user whom this machine does not know stays in them."""
    if isinstance(value, list):
        return [_at_home(part) for part in value]
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value


def guarded(run: Callable[[], int], debug: bool) -> int:
    """Run a verb; what goes wrong becomes one or two lines on stderr, with `debug` a traceback, and an exit code.

    Errors that are bugs of ours pass through, with their traceback.
    """
    make_streams_usable()
    try:
        code = run()
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse leaves this way after --help
        return leaving.code if isinstance(leaving.code, int) else 0
    except (DudiError, KeyboardInterrupt, MemoryError, OSError, ModuleNotFoundError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            _drop_output()
            return ENVIRONMENT
        message, code = explain(error)
        if message is None:
            raise
        if isinstance(error, OSError):
            _drop_output()
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"{plain(message, keep=chr(10))}\n")
        return code


def make_streams_usable() -> None:
    """Let output never end a run: what an encoding cannot say is escaped, a closed stream leads nowhere.

    The number of a closed stream is taken, too, or the next file that is opened would get it and what is printed.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            if nowhere > 2:
                os.close(nowhere)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream.isatty():
                setattr(sys, name, OutlivesTerminal(stream))


class OutlivesTerminal:
    """Output to a terminal, and to nowhere once it has gone (ssh drops): nobody reads it, and the run goes on."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._outlive(lambda: self._stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._outlive(self._stream.flush)

    def _outlive(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return call()


def _reader_has_gone() -> bool:
    """Whether nobody reads our output any more (`| head -1`); a dead peer breaks other pipes."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Throw away output that cannot be written: it would fail again when Python exits, and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: BaseException) -> tuple[str | None, int]:
    """The line for people and the exit code; no line when the error is a bug of ours, whose traceback is wanted."""
    if isinstance(error, DudiError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{': ' if str(error) else ''}{error}", INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        ours = (error.name or "dudi").partition(".")[0] == "dudi"
        return None if ours else f"error: the package '{error.name}' is missing: pip install {error.name}", ENVIRONMENT
    if isinstance(error, OSError):
        # Libraries on top of OSError (the hub, requests) carry text, the system carries a number and a file.
        what = error.strerror or str(error).partition("\n")[0]
        return f"error: {f'{error.filename}: ' if error.filename else ''}{what}", ENVIRONMENT
    if isinstance(error, MemoryError) or type(error).__name__ in _MEMORY:
        advice = "lower per_device_train_batch_size, rollout_batch_size or max_length"
        return f"error: out of memory; {advice}, or see `dudi plan`", ENVIRONMENT
    if type(error).__name__ in _DISTRIBUTED or any(words in str(error) for words in _PEER_GONE):
        return f"error: another process of this run is gone: {str(error).partition(chr(10))[0]}", ENVIRONMENT
    return None, ENVIRONMENT
