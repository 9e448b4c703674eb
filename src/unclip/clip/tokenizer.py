"""Byte-level BPE: captions to token ids, for CLIP and for the decoder's caption encoder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Bool, Int
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from unclip.errors import CheckpointError, OptionError

PAD, START, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SMALLEST = 3 + len(_ALPHABET)
"""Entries of a vocabulary without a single merge: pad, start, end and the 256 bytes."""


class CaptionCut(UserWarning):
    """A caption is longer than an encoder reads; the words beyond its context have no effect."""


class Tokenizer:
    """A trained byte-level BPE vocabulary with a start and an end token.

    Captions are composed (Unicode NFC), lower-cased and stripped of superfluous whitespace.
    Any text can be encoded, in any script; the names of special tokens within a caption are
    plain text. Padding has id 0, and is told from real tokens by a mask alone.

    Args:
        vocabulary: a ``tokenizers`` vocabulary with the tokens ``<|startoftext|>`` and
            ``<|endoftext|>``, ours or OpenAI's.
    """

    def __init__(self, vocabulary: tokenizers.Tokenizer) -> None:
        start, end = vocabulary.token_to_id(START), vocabulary.token_to_id(END)
        if start is None or end is None:
            raise CheckpointError(f"the tokenizer has no {START} and {END}: is it one of CLIP?")
        vocabulary.no_truncation()
        vocabulary.no_padding()
        vocabulary.encode_special_tokens = True
        self._vocabulary = vocabulary
        self.start: int = start
        self.end: int = end

    @classmethod
    def train(cls, captions: Iterable[str], *, vocabulary: int) -> "Tokenizer":
        """Learn merges from captions.

        Args:
            captions: what to learn from; without any, every byte is a token.
            vocabulary: number of tokens at most; few captions may not have that many merges.

        Raises:
            OptionError: if ``vocabulary`` has no room for the bytes.
        """
        if vocabulary < SMALLEST:
            raise OptionError(f"a vocabulary of {vocabulary} is too small: {SMALLEST} at least")
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.normalizer = normalizers.Sequence(
            [
                normalizers.NFC(),
                normalizers.Lowercase(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Strip(),
            ]
        )
        # The prefix space gives a word one token whether or not it begins the caption.
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=[PAD, START, END],
            initial_alphabet=_ALPHABET,
            show_progress=False,
        )
        bpe.train_from_iterator(captions, trainer)
        return cls(bpe)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a ``tokenizer.json``, one of ours or of a public CLIP.

        Raises:
            CheckpointError: if the file is missing or is not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: a CLIP folder holds its tokenizer")
        try:
            vocabulary = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path} is not a tokenizer: {error}") from None
        return cls(vocabulary)

    def save(self, path: Path) -> None:
        """Write a ``tokenizer.json``."""
        path.write_text(self._vocabulary.to_str(pretty=True), encoding="utf-8")

    def __len__(self) -> int:
        """Return one more than the largest token id: the rows an embedding table must have."""
        return self._vocabulary.get_vocab_size(with_added_tokens=True)

    def encode(
        self, captions: Sequence[str], context: int
    ) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"], Bool[Tensor, " b"]]:
        """Turn captions into start, tokens, end, padded on the right to ``context``.

        An empty caption is start and end. A longer caption loses its last tokens, never the end.

        Returns:
            The ids (0 at padding), a mask that is True at real tokens, and which captions were
            cut.
        """
        encodings = self._vocabulary.encode_batch(list(captions), add_special_tokens=False)
        ids = torch.zeros(len(encodings), context, dtype=torch.int64)
        lengths = torch.zeros(len(encodings), dtype=torch.int64)
        for row, encoding in enumerate(encodings):
            tokens = [self.start, *encoding.ids[: context - 2], self.end]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            lengths[row] = len(tokens)
        mask = torch.arange(context) < lengths[:, None]
        cut = torch.tensor([len(encoding.ids) > context - 2 for encoding in encodings]).bool()
        return ids, mask, cut

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token ids back into text, without start, end and padding before or after them."""
        kept = [int(i) for i in ids]
        if kept and kept[0] == self.start:
            kept = kept[1:]
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        return self._vocabulary.decode(kept, skip_special_tokens=False).strip()
