"""Text from data, models and file names, made fit to be shown: it may hold what no terminal should be sent."""

from __future__ import annotations

_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def plain(text: str, keep: str = "") -> str:
    r"""`text` with nothing that UTF-8 cannot hold and nothing that moves a terminal's cursor or turns its text around.

    Args:
        text: Any string.
        keep: Control characters that stay, such as a newline.

    Returns:
        The same text, each such character as its escape (`\x1b`).
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(repr(c)[1:-1] if _moves(c) and c not in keep else c for c in shown)


def _moves(character: str) -> bool:
    """Control characters, and the marks that turn the order of what follows around. Joiners are text and stay."""
    return character < " " or "\x7f" <= character <= "\x9f" or character in _TURNS
