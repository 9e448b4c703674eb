"""The tokenizer of a published CLIP, from the first place that has it.

The source's own files; else, as OpenAI, open_clip and transformers share one vocabulary, the Hub;
else an installed package that carries that vocabulary.
"""

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from unclip.clip.tokenizer import END, START, Tokenizer
from unclip.errors import CheckpointError
from unclip.weights.source import Source, open_source

PUBLIC_VOCABULARY = 49_408
MERGES_GZ = "bpe_simple_vocab_16e6.txt.gz"
HUB = "openai/clip-vit-large-patch14"
CARRIERS = ("open_clip", "clip")
"""Packages that carry the table of merges."""

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_END_OF_WORD = "</w>"


def tokenizer_of(source: Source, folder: str, vocabulary: int) -> Tokenizer:
    """Find the tokenizer of a CLIP.

    Args:
        source: where the CLIP comes from.
        folder: where in it the tokenizer's files may lie, beside its top.
        vocabulary: rows of the CLIP's embedding table.

    Raises:
        CheckpointError: there is none anywhere, or it does not fit.
    """
    found = _own(source, folder)
    if found is None and vocabulary == PUBLIC_VOCABULARY:
        found = _from_hub(source) or _from_package()
    if found is None:
        raise CheckpointError(
            f"{source.name} has no tokenizer, nor is CLIP's in reach: put tokenizer.json, or "
            f"vocab.json and merges.txt, or {MERGES_GZ} beside its weights and import the folder"
        )
    if len(found) > vocabulary:
        raise CheckpointError(
            f"{source.name}: its tokenizer has {len(found)} tokens, its text tower {vocabulary}"
        )
    return found


def build_tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """CLIP's byte-level BPE from a vocabulary and its merges, the first applied first.

    Raises:
        CheckpointError: they do not belong together, or the special tokens are missing.
    """
    try:
        model = models.BPE(
            vocab=vocabulary,
            merges=list(merges),
            end_of_word_suffix=_END_OF_WORD,
            continuing_subword_prefix="",
            unk_token=END,
        )
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"vocabulary and merges do not belong together: {error}") from None
    bpe = tokenizers.Tokenizer(model)
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([token for token in (START, END) if token in vocabulary])
    return Tokenizer(bpe)


def from_merges(path: Path) -> Tokenizer:
    """OpenAI's gzipped table of merges, from which its vocabulary follows.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # OpenAI reads no further than its vocabulary goes; the first line names the version.
    count = PUBLIC_VOCABULARY - 2 * len(letters) - 2
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : count + 1] if line.strip())]
    words = [*letters, *(letter + _END_OF_WORD for letter in letters)]
    words += [a + b for a, b in merges] + [START, END]
    return build_tokenizer({word: i for i, word in enumerate(words)}, merges)


def _own(source: Source, folder: str) -> Tokenizer | None:
    for place in dict.fromkeys((f"{folder}/" if folder else "", "", "tokenizer/")):
        if source.has(f"{place}tokenizer.json"):
            return Tokenizer.load(source.path(f"{place}tokenizer.json"))
        if source.has(f"{place}vocab.json", f"{place}merges.txt"):
            vocabulary = source.json(f"{place}vocab.json")
            return build_tokenizer(vocabulary, _merges(source.path(f"{place}merges.txt")))
        if source.has(place + MERGES_GZ):
            return from_merges(source.path(place + MERGES_GZ))
    return None


def _merges(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"{path} is damaged: a merge has two parts")
    return [(a, b) for a, b in pairs]


def _from_hub(source: Source) -> Tokenizer | None:
    try:
        return _own(open_source(HUB, offline=source.offline), "")
    except CheckpointError:
        return None  # not in reach; a package may carry it


def _from_package() -> Tokenizer | None:
    for package in CARRIERS:
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            if (file := Path(place) / MERGES_GZ).is_file():
                return from_merges(file)
    return None
