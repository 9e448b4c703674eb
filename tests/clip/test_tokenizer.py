import string

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from unclip.clip.tokenizer import END, PAD, SMALLEST, START, Tokenizer
from unclip.errors import CheckpointError, OptionError

CAPTIONS = [
    "a red apple on a white background",
    "two red hearts",
    "a smiling cat, flat cartoon style",
    "빨간 사과",
    "웃는 고양이",
    "파란 배경의 빨간 사과",
] * 3
TOKENIZER = Tokenizer.train(CAPTIONS, vocabulary=400)


def round_trip(tokenizer, text):
    ids, mask, _ = tokenizer.encode([text], 1024)
    return tokenizer.decode(ids[0, mask[0]].tolist())


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("A  RED\n apple ", "a red apple"),
        ("빨간\t사과", "빨간 사과"),
        ("\u1107\u1161\u1102\u1161", "바나"),  # decomposed, as macOS writes file names
        ("été 🍎 ½", "été 🍎 ½"),
        ("", ""),
        (f"a {END} {PAD}", f"a {END} {PAD}"),
    ],
)
def test_captions_come_back_clean(caption, clean):
    assert round_trip(TOKENIZER, caption) == clean


@given(st.text(max_size=40))
def test_any_text_survives(text):
    once = round_trip(TOKENIZER, text)
    assert round_trip(TOKENIZER, once) == once
    assert len(once) >= len("".join(text.split())) // 4


@given(st.lists(st.text(string.ascii_lowercase + "가나다라각힣", min_size=1), max_size=8))
def test_words_come_back_exactly(words):
    assert round_trip(TOKENIZER, "  ".join(words)) == " ".join(words)


@given(st.lists(st.text(max_size=30), max_size=5), st.integers(3, 20))
def test_every_caption_has_start_end_and_padding(captions, context):
    ids, mask, cut = TOKENIZER.encode(captions, context)
    assert ids.shape == mask.shape == (len(captions), context)
    for row, real, short in zip(ids, mask, cut, strict=True):
        length = int(real.sum())
        assert real.tolist() == [True] * length + [False] * (context - length)
        assert row[0] == TOKENIZER.start
        assert row[length - 1] == TOKENIZER.end
        assert not row[length:].any()
        assert (row == TOKENIZER.end).sum() == 1  # a caption cannot smuggle one in
        assert not short or length == context


def test_only_what_does_not_fit_is_cut():
    full = TOKENIZER.encode(["zqzqzq"], 64)[1].sum()  # one byte a token
    assert full == 2 + 1 + 6  # with the space before the word
    for context, expected in ((9, False), (8, True)):
        ids, mask, cut = TOKENIZER.encode(["zqzqzq", "z"], context)
        assert cut.tolist() == [expected, False]
        assert mask[0].all()
        assert ids[0, -1] == TOKENIZER.end
    assert TOKENIZER.decode(ids[0].tolist()) == "zqzqz"


def test_empty_caption_is_start_and_end():
    ids, mask, cut = TOKENIZER.encode([""], 5)
    assert ids.tolist() == [[TOKENIZER.start, TOKENIZER.end, 0, 0, 0]]
    assert mask.sum() == 2
    assert not cut


def test_merges_are_learned_for_both_scripts():
    plain = Tokenizer.train([], vocabulary=SMALLEST)
    for caption in ("a red apple", "빨간 사과"):
        trained = TOKENIZER.encode([caption], 64)[1].sum()
        assert trained == 2 + len(caption.split())
        assert plain.encode([caption], 64)[1].sum() == 2 + 1 + len(caption.encode())
    # A word is the same token at the start of a caption and within it.
    assert TOKENIZER.encode(["red"], 3)[0][0, 1] == TOKENIZER.encode(["a red"], 4)[0][0, 2]


def test_saves_and_loads(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert len(loaded) == len(TOKENIZER)
    for captions in (CAPTIONS, [f"{START} A  빨간 {END}"]):
        for a, b in zip(loaded.encode(captions, 9), TOKENIZER.encode(captions, 9), strict=True):
            assert torch.equal(a, b)


def test_training_is_reproducible(tmp_path):
    for name in ("a", "b"):
        Tokenizer.train(iter(CAPTIONS), vocabulary=350).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_reads_a_tokenizer_in_the_public_layout(tmp_path):
    """Words end in </w>, the file itself asks for truncation, padding and special tokens."""
    vocab = {"!": 0, "c": 1, "a": 2, "t</w>": 3, "at</w>": 4, "cat</w>": 5, START: 6, END: 7}
    merges = [("a", "t</w>"), ("c", "at</w>")]
    public = tokenizers.Tokenizer(models.BPE(vocab, merges, end_of_word_suffix="</w>"))
    public.normalizer = normalizers.Lowercase()
    public.pre_tokenizer = pre_tokenizers.Whitespace()
    public.add_special_tokens([START, END])
    public.post_processor = processors.RobertaProcessing((END, 7), (START, 6))
    public.enable_truncation(3)
    public.enable_padding(pad_id=7, pad_token=END, length=6)
    public.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    ids, mask, cut = tokenizer.encode(["Cat cat cat", "cat"], 5)
    assert ids.tolist() == [[6, 5, 5, 5, 7], [6, 5, 7, 0, 0]]
    assert mask.sum(dim=1).tolist() == [5, 3]
    assert not cut.any()


def test_what_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="missing"):
        Tokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        Tokenizer.load(path)
    tokenizers.Tokenizer(models.BPE()).save(str(path))
    with pytest.raises(CheckpointError, match="startoftext"):
        Tokenizer.load(path)
    with pytest.raises(OptionError, match="259"):
        Tokenizer.train(CAPTIONS, vocabulary=SMALLEST - 1)
