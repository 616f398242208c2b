"""The bytes of tokens: every kind of tokenizer, characters cut in the middle, bytes that are no text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from dudi.errors import ConfigError
from dudi.objective.token_bytes import PROBE, spelling_of, token_bytes
from helpers import make_tokenizer
from tokenizer_kinds import ANSWERS, byte_bpe, sentence_piece, smollm2, word_piece

KINDS = {
    "byte-level": make_tokenizer,
    "sentencepiece": sentence_piece,
    "unigram": lambda: sentence_piece(kind="unigram"),
    "dummy prefix": lambda: sentence_piece(dummy_prefix=True),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def as_bytes(spelling):
    return spelling.encode("latin-1")


@pytest.mark.parametrize("language", ANSWERS)
def test_a_text_is_the_bytes_of_its_tokens(tokenizer, language):
    text = f"{ANSWERS[language]} 2014,  {ANSWERS[language]}\n"
    read = token_bytes(tokenizer)
    spelled = as_bytes(read.spell(tokenizer(text, add_special_tokens=False)["input_ids"])).decode()
    assert spelled == " " * read.dummy_prefix + text


def test_a_token_that_decodes_to_whole_characters_decodes_to_its_bytes(tokenizer):
    read = token_bytes(tokenizer)
    for index, spelling in enumerate(read.spellings):
        text = tokenizer.decode([index])
        if spelling is not None and "\ufffd" not in text:
            assert as_bytes(spelling).decode().removeprefix(" " * read.dummy_prefix) == text.removeprefix(" ") or (
                as_bytes(spelling).decode() == text
            )


@pytest.mark.parametrize("text", ["မြန်", "தமிழ்", "ไทย"], ids=["my", "ta", "th"])
def test_a_token_that_ends_inside_a_character_keeps_its_bytes(text):
    """Two bytes of three are one token here; `decode` would give U+FFFD."""
    first = text[0].encode()
    names = {byte: name for name, byte in _alphabet().items()}
    tokenizer = byte_bpe([(names[chr(first[0])], names[chr(first[1])])])
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids[:1]) == "\ufffd"
    read = token_bytes(tokenizer)
    assert as_bytes(read.spellings[ids[0]]) == first[:2]
    assert as_bytes(read.spell(ids)).decode() == text


def _alphabet():
    from dudi.objective.token_bytes import _byte_alphabet

    return _byte_alphabet()


def test_special_tokens_have_no_bytes_and_rows_beyond_the_tokenizer_have_none():
    tokenizer = make_tokenizer()
    read = token_bytes(tokenizer, size=len(tokenizer) + 28)
    assert [read.spellings[i] for i in tokenizer.all_special_ids] == [None] * 3
    assert read.spellings[len(tokenizer) :] == [None] * 28
    assert read.specials == {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}


def test_an_added_token_that_is_no_special_one_stands_for_its_text():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<think>", "ကမ္ဘာ"])
    read = token_bytes(tokenizer)
    ids = tokenizer("a<think>ကမ္ဘာ")["input_ids"]
    assert ids[-2:] == [len(tokenizer) - 2, len(tokenizer) - 1]
    assert as_bytes(read.spell(ids)).decode() == "a<think>ကမ္ဘာ"


def test_the_name_of_a_special_token_in_a_text_is_text():
    tokenizer = make_tokenizer()
    special = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert special in tokenizer("a<|im_end|>")["input_ids"]
    read = token_bytes(tokenizer)
    ids = read.encode(spelling_of("a<|im_end|>"))
    assert special not in ids
    assert as_bytes(read.spell(ids)) == b"a<|im_end|>"


def test_text_that_is_not_normalised_keeps_its_bytes():
    """Qwen's tokenizer writes NFC; what a student wrote may be something else."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    decomposed = "a\u0301"
    assert tokenizer(decomposed)["input_ids"] == tokenizer("\u00e1")["input_ids"]
    read = token_bytes(tokenizer)
    assert as_bytes(read.spell(read.encode(spelling_of(decomposed)))).decode() == decomposed


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_come_back(data):
    for read in READ:
        spelled = read.spell(read.encode(data.decode("latin-1")))
        parts = as_bytes(spelled)
        assert parts == data or (read.dummy_prefix and parts.replace(b" ", b"") == data.replace(b" ", b""))


READ = [token_bytes(make()) for make in KINDS.values()]


def test_bytes_without_a_token_end_the_ids():
    tokenizer = make_tokenizer()
    read = token_bytes(tokenizer)
    read.of_byte.pop("\xff")
    assert as_bytes(read.spell(read.encode("ab\xffcd"))) == b"ab"


def test_word_pieces_are_refused():
    with pytest.raises(ConfigError, match="a WordPiece tokenizer's tokens do not say where spaces are"):
        token_bytes(word_piece())


def test_a_tokenizer_that_changes_text_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(
        ConfigError, match=r"does not give a text back byte for byte \(b'Apa kaba' became b'apa kaba'\)"
    ):
        token_bytes(tokenizer)


def test_a_tokenizer_of_unknown_spelling_is_refused():
    tokenizer = make_tokenizer()
    core = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer._tokenizer = core
    with pytest.raises(ConfigError, match="neither byte-level nor SentencePiece"):
        token_bytes(tokenizer)


def test_every_token_of_smollm2_is_what_it_decodes_to():
    tokenizer = smollm2()
    read = token_bytes(tokenizer)
    whole = [i for i, one in enumerate(read.spellings) if one is not None and _is_text(one)]
    assert len(whole) > 48_000
    texts = tokenizer.batch_decode([[i] for i in whole])
    assert texts == [as_bytes(read.spellings[i]).decode() for i in whole]
    assert as_bytes(read.spell(tokenizer(PROBE)["input_ids"])).decode() == PROBE


def _is_text(spelling):
    try:
        as_bytes(spelling).decode()
    except UnicodeDecodeError:
        return False
    return True
