"""The table of language codes: complete for the paper's data sets, true to NLLB's tokenizer, no wrong guess."""

import pytest
from transformers.models.mbart50 import tokenization_mbart50
from transformers.models.nllb import tokenization_nllb

from dudi.stacking.codes import by_language, find_language, languages_of, nearest_code, nllb_codes

SETS = ("sib200", "belebele", "xnli", "americasnli", "kardesnlu", "nusax")
ROMANISED = {"arb_Latn", "ben_Latn", "hin_Latn", "npi_Latn", "sin_Latn", "urd_Latn"}


def test_the_codes_are_those_of_nllb_s_own_tokenizer():
    assert set(nllb_codes()) == set(tokenization_nllb.FAIRSEQ_LANGUAGE_CODES)
    assert len(nllb_codes()) == 202


def test_every_name_of_the_table_leads_to_a_code_of_nllb():
    from dudi.stacking import codes

    table = codes._table()
    targets = [*table["names"].values(), *(entry["as"] for entry in table["elsewhere"].values() if "as" in entry)]
    assert set(targets) <= set(nllb_codes())
    assert not set(table["elsewhere"]) & set(nllb_codes())


@pytest.mark.parametrize(
    ("name", "count"),
    [("sib200", 205), ("belebele", 122), ("xnli", 15), ("americasnli", 10), ("kardesnlu", 5), ("nusax", 12)],
)
def test_every_language_of_a_set_is_known(name, count):
    languages = languages_of(name)
    assert len(languages) == len({language.code for language in languages.values()}) == count


def test_the_languages_of_the_paper_are_127():
    """Those of the authors' configurations; of AmericasNLI the three that NLLB knows."""
    evaluated = [one for name in SETS if name != "sib200" for one in languages_of(name).values()]
    assert len({one.code for one in evaluated if one.nllb is not None} - ROMANISED) == 127


def test_what_nllb_does_not_know_is_mapped_and_said():
    other = {language.code: language for language in languages_of("belebele").values() if language.stand_in}
    assert set(other) == ROMANISED
    assert other["urd_Latn"].nllb == "urd_Arab"
    assert other["urd_Latn"].stand_in == "Urdu in Latin letters"
    assert languages_of("americasnli")["nah"].nllb is None


def test_uyghur_is_the_script_that_a_set_writes_it_in():
    """Kardes-NLU's is Cyrillic, while `ug` is Arabic in general, as in NLLB and SIB-200."""
    assert languages_of("kardesnlu")["ug"].code == "uig_Cyrl"
    assert languages_of("kardesnlu")["ug"].nllb == "kaz_Cyrl"
    assert find_language("ug").nllb == "uig_Arab"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("kaz_Cyrl", "kaz_Cyrl"),
        ("en", "eng_Latn"),
        ("eng", "eng_Latn"),
        ("zh-Hant", "zho_Hant"),
        ("zh_CN", "zho_Hans"),
        ("id_ID", "ind_Latn"),
        ("el", "ell_Grek"),
        ("ug", "uig_Arab"),
        ("min", "min_Latn"),
        ("sat", "sat_Beng"),
        ("kas", None),  # two scripts: nobody can know
        ("en_GBR", None),
        ("", None),
        ("uig_Latn", None),
    ],
)
def test_names_of_every_kind(name, code):
    found = find_language(name)
    assert (None if found is None else found.code) == code


def test_a_tokenizer_s_codes_by_language():
    assert by_language(["en", "id", "__x__"]) == {"eng_Latn": "en", "ind_Latn": "id"}
    mbart = by_language(tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES)
    assert len(mbart) == len(tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES)
    assert mbart["mya_Mymr"] == "my_MM"


@pytest.mark.parametrize("name", SETS)
def test_the_hint_names_the_right_language_for_every_code_of_every_set(name):
    for meant in languages_of(name).values():
        if meant.nllb is not None:
            assert nearest_code(meant.code, nllb_codes()) == meant.nllb


def test_a_hint_for_what_the_table_does_not_know():
    assert nearest_code("kaz_Latn", nllb_codes()) == "kaz_Cyrl"
    assert nearest_code("ind_latn", nllb_codes()) == "ind_Latn"
    assert nearest_code("kas", nllb_codes()).startswith("kas_")
