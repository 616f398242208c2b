"""How FLORES-200 and NTREX-128 name languages: by ISO 639-3 and the script, as in `tha_Thai`."""

from __future__ import annotations

FLORES = {
    "id": "ind_Latn",
    "vi": "vie_Latn",
    "th": "tha_Thai",
    "ta": "tam_Taml",
    "tl": "tgl_Latn",
    "ms": "zsm_Latn",
    "my": "mya_Mymr",
    "en": "eng_Latn",
}
"""The names of languages in FLORES-200, which many sets have taken over."""
NTREX = FLORES | {"tl": "fil_Latn", "ms": "msa_Latn"}
"""The same in NTREX-128."""
CODES = {name: code for table in (FLORES, NTREX) for code, name in table.items()}
"""The code of each of these names."""
