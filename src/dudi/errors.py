"""The errors a user can cause, one class per exit code.

Every message is one or two lines that say what is wrong, where (file, line, key) and what to do. The command line
prints it without a traceback and leaves with `exit_code`; from Python the same classes are raised.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

INTERRUPTED = 130
"""The exit code after SIGINT or SIGTERM."""


class DudiError(Exception):
    """Base of every error that a user can cause or repair."""

    exit_code = 1


class EnvironmentFault(DudiError):
    """Disk, memory, network, a missing package or a dead peer: nothing is wrong with the recipe."""


class ConfigError(DudiError):
    """Wrong usage or a wrong config, a refused resume included."""

    exit_code = 2


class DataError(DudiError):
    """Bad rows beyond the allowed share, an empty dataset, a hostile file."""

    exit_code = 3


class NumericError(DudiError):
    """A loss, gradient or logit became NaN or infinite."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """A signal ended the run at a step boundary; the message says what was saved."""


_MOVES = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and the marks that turn the order of what follows around. Joiners are text and stay."""


def plain(text: str, keep: str = "") -> str:
    r"""`text` with nothing that UTF-8 cannot hold and nothing that moves a terminal's cursor or turns its text around.

    Each such character stands as its escape (`\x1b`), but for those control characters that are kept.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(repr(c)[1:-1] if _MOVES.fullmatch(c) and c not in keep else c for c in shown)


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The member of `valid` closest to `word`, or None when nothing is close.

    Of two codes of two letters, one in common says little: `de` is no slip for `id`, but `vn` is one for `vi`.
    """
    asked = str(word).lower()
    names = {name.lower(): name for name in valid if len(asked) > 2 or name[:1].lower() == asked[:1]}
    found = difflib.get_close_matches(asked, names, n=1, cutoff=0.6 if len(asked) > 2 else 0.5)
    return names[found[0]] if found else None


def first_of(names: Sequence[str], most: int, joint: str = ", ") -> str:
    """At most so many names, joined, and how many there are beside them: `a, b and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{joint.join(names[:most])}{more}"


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or an empty string when nothing is close."""
    name = nearest(word, valid)
    return f" (did you mean '{name}'?)" if name else ""
