"""Cells, the teacher's encoding of a student's bytes, and the alignment of both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.objective.shared_events import END, ENDS_HERE, SharedEvents
from helpers import SPECIALS, make_tokenizer
from tokenizer_kinds import ANSWERS, byte_bpe, sentence_piece, shared_texts, smollm2

ALPHABET = "abc ်မတကยไิ2017é"


def events(student, teacher, **sizes):
    return SharedEvents(student, teacher, [end_of(student)], [end_of(teacher)], **sizes)


def end_of(tokenizer):
    found = [tokenizer.get_vocab().get(token) for token in ("<|im_end|>", "<end_of_turn>")]
    return next(index for index in found if index is not None)


def answer(tokenizer, text):
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], end_of(tokenizer)]


@pytest.fixture(scope="module")
def kinds():
    return {
        "large": make_tokenizer(),
        "small": make_tokenizer(vocab_size=300),
        "sentencepiece": sentence_piece(),
        "unigram": sentence_piece(kind="unigram"),
        "dummy": sentence_piece(dummy_prefix=True),
    }


PAIRS = [
    ("large", "small"),
    ("small", "large"),
    ("large", "sentencepiece"),
    ("sentencepiece", "large"),
    ("unigram", "small"),
    ("large", "dummy"),
    ("dummy", "large"),
    ("dummy", "dummy"),
]


def test_a_token_falls_into_its_longest_shared_beginning():
    student, teacher = byte_bpe([("2", "0"), ("20", "1"), ("t", "h")]), byte_bpe([("2", "0"), ("t", "h"), ("th", "e")])
    found = events(student, teacher)
    cell = {token: found.cells[found.student_cells[i]] for token, i in student.get_vocab().items() if len(token) < 5}
    assert (cell["201"], cell["20"], cell["2"], cell["th"]) == ("20", "20", "2", "th")
    theirs = {token: found.cells[found.teacher_cells[i]] for token, i in teacher.get_vocab().items() if len(token) < 5}
    assert (theirs["the"], theirs["th"], theirs["t"]) == ("th", "th", "t")


def test_digits_that_one_side_splits_are_one_event_with_their_first(kinds):
    """A loss on shared tokens alone would push "201" to 0 where the teacher writes "2"."""
    student, teacher = byte_bpe([("2", "0"), ("20", "1")]), byte_bpe([])
    found = events(student, teacher)
    ids = answer(student, "2017")
    aligned = found.align(ids, found.encode(ids))
    assert aligned.used[:-1].all()
    assert aligned.agreeing[:-1].all()
    assert found.cells[aligned.first_cell[0]] == "2"
    assert aligned.student.inside.tolist() == [False, True, True, False, False, False]


def test_ends_of_turn_are_one_event_and_other_special_tokens_meet_by_name():
    student = make_tokenizer()
    teacher = make_tokenizer(specials=["<|endoftext|>", "<turn|>", "<|im_start|>", "<unused>"])
    turn = teacher.convert_tokens_to_ids("<turn|>")
    found = SharedEvents(student, teacher, [2, 0], [turn, 0], student_size=448)
    cells = found.student_cells[[2, 0, 1]]
    assert found.cells[cells[0]] == END
    assert len(set(cells)) == 3
    assert found.teacher_cells[[turn, 0, 2]].tolist() == cells.tolist()
    other = len(found.cells)
    assert found.teacher_cells[teacher.convert_tokens_to_ids("<unused>")] == other
    assert found.student_cells[len(student) :].tolist() == [other] * (448 - len(student))


def test_a_second_stop_that_only_one_side_has_is_an_end_too():
    student = make_tokenizer()
    teacher = make_tokenizer(specials=["<eos>", "<turn|>"])
    found = SharedEvents(student, teacher, [2, 0], [1, 0])
    assert {found.cells[i] for i in [*found.student_cells[[2, 0]], *found.teacher_cells[[1, 0]]]} == {END}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("language", ANSWERS)
def test_the_teacher_reads_the_same_text_in_its_own_tokens(kinds, pair, language):
    student, teacher = (kinds[name] for name in pair)
    text = ANSWERS[language]
    assert events(student, teacher).encode(answer(student, text)) == answer(teacher, text)


@pytest.mark.parametrize("cut", range(1, 9))
@pytest.mark.parametrize("text", ["မြန်မာ", "தமிழ்", "ไทยแลนด์"], ids=["my", "ta", "th"])
def test_a_rollout_that_ends_inside_a_character_is_cut_at_its_last_whole_one(text, cut):
    student, teacher = byte_bpe([]), byte_bpe([])
    ids = student(text)["input_ids"][:cut]
    found = events(student, teacher)
    whole = text.encode()[:cut].decode(errors="ignore")
    assert found.encode(ids) == teacher(whole)["input_ids"]
    aligned = found.align(ids, found.encode(ids))
    assert aligned.used_bytes() == len(whole.encode()) // 3 * 3
    assert aligned.used_tokens().tolist() == [i < len(whole.encode()) for i in range(cut)]


def test_a_broken_character_before_a_last_line_break_is_not_waited_for():
    student, teacher = byte_bpe([]), byte_bpe([])
    ids = [student.get_vocab()[name] for name in ("a", "á", "Ċ")]  # a, the lone byte E1, a line break
    assert events(student, teacher).encode(ids) == [teacher.get_vocab()[name] for name in ("a", "á", "Ċ")]


def test_bytes_that_are_no_text_are_read_one_by_one_and_the_end_after_them_too(kinds):
    student, teacher = kinds["large"], kinds["sentencepiece"]
    found = events(student, teacher)
    lone = student.convert_tokens_to_ids("á")  # the byte E1
    ids = [*student("ok")["input_ids"], lone, *student(" ok")["input_ids"], end_of(student)]
    theirs = found.encode(ids)
    assert theirs[-1] == end_of(teacher)
    assert teacher.convert_tokens_to_ids("<0xE1>") in theirs
    assert found.align(ids, theirs).used_bytes() == 7


def test_the_teacher_reads_up_to_a_special_token_that_it_does_not_know(kinds):
    student, teacher = kinds["large"], kinds["sentencepiece"]
    ids = [*student("ok")["input_ids"], student.convert_tokens_to_ids("<|im_start|>"), *student("no")["input_ids"]]
    found = events(student, teacher)
    assert found.encode(ids) == teacher("ok")["input_ids"]
    assert found.align(ids, found.encode(ids)).used_bytes() == 2


def test_special_tokens_that_a_rollout_spells_out_are_text_for_the_teacher(kinds):
    student, teacher = kinds["large"], kinds["sentencepiece"]
    ids = student("a <end_of_turn>")["input_ids"]
    assert end_of(teacher) in teacher("a <end_of_turn>")["input_ids"]
    assert end_of(teacher) not in events(student, teacher).encode(ids)


def test_nothing_to_compare_is_no_error(kinds):
    found = events(kinds["large"], kinds["sentencepiece"])
    for ids in ([], [end_of(kinds["large"])], [kinds["large"].convert_tokens_to_ids(SPECIALS[1])]):
        aligned = found.align(ids, found.encode(ids))
        assert aligned.used.sum() == (ids == [end_of(kinds["large"])])


def test_identical_sequences_have_a_place_for_each_token_and_no_covers(kinds):
    found = events(kinds["large"], kinds["large"])
    for text in ANSWERS.values():
        ids = answer(kinds["large"], text)
        aligned = found.align(ids, found.encode(ids))
        assert aligned.student.rows[:-1].tolist() == aligned.teacher.rows[:-1].tolist() == list(range(len(ids)))
        assert len(aligned.student.covers.row) == len(aligned.teacher.covers.row) == 0
        assert (aligned.ends == -1).all()
        assert aligned.used[:-1].all()


def test_a_dummy_space_is_no_part_of_the_text(kinds):
    """The first token of "▁Ibu" begins before the text: what the teacher says there is about a space."""
    found = events(kinds["large"], kinds["dummy"])
    ids = answer(kinds["large"], "Ibu kota")
    theirs = found.encode(ids)
    assert kinds["dummy"].convert_ids_to_tokens(theirs[0]).startswith("▁")
    aligned = found.align(ids, theirs)
    assert not aligned.used[0]
    assert aligned.used[aligned.places >= 3][:-1].all()
    assert aligned.total == 9


TEXT = st.text(ALPHABET, max_size=12)


@settings(deadline=None)
@given(TEXT, st.sampled_from(PAIRS), st.integers(0, 3), st.data())
def test_an_alignment_says_what_both_sides_bytes_say(kinds, text, pair, cut, data):
    student, teacher = (kinds[name] for name in pair)
    found = events(student, teacher)
    ids = answer(student, text)
    ids = ids[: len(ids) - cut]
    if data.draw(st.booleans()):  # as a student may sample them: other tokens for the same bytes, or no text at all
        ids = data.draw(st.lists(st.integers(0, len(student) - 1), max_size=8)) + ids
    check(found, ids, found.encode(ids))


def check(found, ids, theirs):
    aligned = found.align(ids, theirs)
    for side, other, tokens in (("student", "teacher", ids), ("teacher", "student", theirs)):
        track, spelling = getattr(aligned, side), found._sides[side].spelling
        path = found._path(side, tokens, other)
        assert track.length == len(tokens)
        for place in np.flatnonzero(aligned.used):
            row, cells = track.rows[place], found.cells[aligned.first_cell[place] : aligned.last_cell[place]]
            passed = aligned.places[place] - path.starts[row]
            assert track.inside[place] == (passed > 0)
            rest = spelling(tokens[row])[passed:]
            assert path.text[aligned.places[place] :].startswith(rest)
            assert any(rest.startswith(cell) for cell in cells)
        covers = track.covers
        for border, row, token, cell in zip(covers.border, covers.row, covers.token, covers.cell, strict=True):
            passed = aligned.places[border] - path.starts[row]
            assert path.text[path.starts[row] :][:passed] == spelling(token)[:passed]
            rest = spelling(token)[passed:]
            assert cell == (found._cell_of(rest) if rest else ENDS_HERE)
            assert rest or track.inside[border]
    assert (np.diff(aligned.places) > 0).all()
    assert not aligned.used[-1]
    assert 0 <= aligned.used_bytes() <= aligned.total


LANGUAGES = ["en", "id", "vi", "th", "ta", "tl", "ms", "my"]


@pytest.fixture(scope="module")
def real_pair():
    """SmolLM2's tokenizer, and a SentencePiece one that has learnt the same eight languages."""
    texts = [text for language in LANGUAGES for text in shared_texts("sib200", language, 20)]
    return smollm2(), sentence_piece(3000, texts=texts)


@pytest.mark.parametrize("swapped", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["teacher", "student"])
def test_smollm2_meets_a_sentencepiece_vocabulary_on_real_texts(real_pair, swapped):
    one, other = reversed(real_pair) if swapped else real_pair
    found = events(one, other)
    for language in LANGUAGES:
        for text in shared_texts("sib200", language, 3):
            ids = answer(one, text)
            theirs = found.encode(ids)
            assert theirs == answer(other, text)
            aligned = found.align(ids, theirs)
            assert aligned.used_bytes() == aligned.total
