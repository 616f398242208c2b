"""From Unicode Burmese to Zawgyi, as far as tests need it: the order, the numbers of the signs, and the stacks."""

import re

_LETTERS = "\u1000-\u1021"
_UPPER = "".join(
    map(chr, [*range(0x1000, 0x1004), *range(0x1005, 0x1009), 0x100B, 0x100C, 0x100F, *range(0x1010, 0x101A), 0x101C])
)
_LOWER = "".join(
    map(
        chr,
        [
            *range(0x1060, 0x1064),
            0x1065,
            0x1066,
            0x1068,
            0x1069,
            0x106C,
            0x106D,
            0x1070,
            0x1071,
            0x1073,
            *range(0x1075, 0x107D),
            0x1085,
        ],
    )
)
_STACKS = dict(zip(_UPPER, _LOWER, strict=True))
_SYLLABLE = re.compile(
    "(\u1004\u103a\u1039)?"
    f"([{_LETTERS}\u103f\u1029\u1025])"
    f"((?:\u1039[{_LETTERS}])?)(\u103b?)(\u103c?)(\u103d?)(\u103e?)(\u1031?)"
)


def _syllable(found: re.Match[str]) -> str:
    kinzi, letter, stack, ya, ra, wa, ha, e = found.groups(default="")
    front = e + ("\u103b" if ra else "") + letter + ("\u1064" if kinzi else "") + _STACKS.get(stack[1:], "")
    return front + ("\0" if ya else "") + ("\u103c" if wa else "") + ("\u103d" if ha else "")


def to_zawgyi(text: str) -> str:
    """Vowel e and medial ra in front of their letter, the silencing sign as U+1039, stacked letters as variants."""
    return _SYLLABLE.sub(_syllable, text).replace("\u103a", "\u1039").replace("\0", "\u103a")
