"""The wish for a translation, worded in the language of the text that is to be translated."""

from __future__ import annotations

from collections.abc import Mapping

from dudi.languages.registry import LANGUAGES, Language, load_languages


def translation_prompt(text: str, source: str, target: str, languages: Mapping[str, Language] | None = None) -> str:
    """What is asked of one who shall translate a text, or a template's placeholder for it.

    The wish comes first, then the text behind the name of its language, then the name of the other language and a
    colon: a chat model reads a question, and a model without a template finds the place where it has to go on. The
    prompt is worded in the language of the text, or in English where that language's file has no `translation`.

    Raises:
        KeyError: a code is not known.
    """
    known = load_languages() if languages is None else languages
    speaker = known[source] if known[source].translation else LANGUAGES["en"]
    own, wanted = (speaker.names.get(code, known[code].name) for code in (source, target))
    wish = speaker.translation.format(language=wanted)
    return f"{wish}\n\n{own[:1].upper()}{own[1:]}: {text}\n{wanted[:1].upper()}{wanted[1:]}:"
