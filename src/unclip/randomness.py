"""Random numbers that belong to samples, not to a batch.

Every image (or small block of training samples) has its own seeded stream, so that neither the
batch size, nor the device, nor the number of processes changes what noise a sample gets.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 8
"""Training samples that share a stream."""


def derive_seed(*parts: int | str) -> int:
    """Hash integers and names into one 63-bit seed, the same on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


class Randomness:
    """Streams of random numbers for the samples of one batch, drawn in float32.

    Args:
        seeds: one seed per stream.
        per_stream: how many consecutive samples share a stream. 1 for sampling; training uses
            small blocks, because one generator per sample is slow for large batches.
        device: where to draw. Sampling draws on the CPU, so that a seed means the same
            picture on every device.
        part: which of all those samples the batch consists of, by number; all if not given. The
            others are drawn and dropped.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        per_stream: int = 1,
        device: torch.device | str = "cpu",
        part: Sequence[int] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.per_stream = per_stream
        self._part = None if part is None else list(part)
        self.batch = len(seeds) * per_stream if part is None else len(part)
        self._streams = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    @classmethod
    def for_step(
        cls, seed: int, step: int, first: int, batch: int, device: torch.device | str = "cpu"
    ) -> "Randomness":
        """Streams of a training step for samples ``first … first + batch`` of its global batch.

        Blocks of the global batch share a stream wherever the batch is cut, so two processes
        draw what one process with twice the batch draws.
        """
        skipped = first % _BLOCK
        starts = range(first - skipped, first + batch, _BLOCK)
        part = range(skipped, skipped + batch)
        return cls([derive_seed(seed, step, start) for start in starts], _BLOCK, device, part)

    @classmethod
    def joined(cls, parts: Sequence["Randomness"]) -> "Randomness":
        """The samples of all ``parts``, one part after the other, each on its own stream."""
        first = parts[0]
        if all(part is first for part in parts):
            return first
        assert len({part.per_stream for part in parts}) == 1, "streams of different lengths"
        streams: list[torch.Generator] = []
        samples: list[int] = []
        for part in parts:
            drawn = len(streams) * first.per_stream
            streams += part._streams
            everyone = range(len(part._streams) * first.per_stream)
            samples += [drawn + i for i in (everyone if part._part is None else part._part)]
        joined = cls([], first.per_stream, first.device, samples)
        joined._streams = streams
        return joined

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Standard normal numbers of shape ``(batch, *shape)``."""
        draws = [torch.randn(self.per_stream, *shape, **self._at(g)) for g in self._streams]
        return self._of_batch(draws)

    def uniform(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Uniform numbers in [0, 1) of shape ``(batch, *shape)``."""
        draws = [torch.rand(self.per_stream, *shape, **self._at(g)) for g in self._streams]
        return self._of_batch(draws)

    def integers(self, high: int, *shape: int) -> Int[Tensor, "b ..."]:
        """Integers in ``[0, high)`` of shape ``(batch, *shape)``."""
        draws = [
            torch.randint(high, (self.per_stream, *shape), **self._at(g)) for g in self._streams
        ]
        return self._of_batch(draws)

    def split(self, name: str) -> "Randomness":
        """Fresh streams for the same samples, for another purpose such as the next stage."""
        seeds = [derive_seed(stream.initial_seed(), name) for stream in self._streams]
        return Randomness(seeds, self.per_stream, self.device, self._part)

    def _of_batch(self, draws: list[Tensor]) -> Tensor:
        everyone = torch.cat(draws)
        return everyone if self._part is None else everyone[self._part]

    def _at(self, stream: torch.Generator) -> dict:
        return {"generator": stream, "device": self.device}


class InjectedNoise(Randomness):
    """Hands out prepared numbers in order; how a run is compared with another implementation.

    Args:
        normals: what `normal` gives, one call after the other.
        uniforms: the same for `uniform`.
        integers: the same for `integers`.
        batch: rows of each; one sampled with several candidates has that many times the rows.
    """

    def __init__(
        self,
        normals: Iterable[Float[Tensor, "..."]] = (),
        uniforms: Iterable[Float[Tensor, "..."]] = (),
        integers: Iterable[Int[Tensor, "..."]] = (),
        *,
        batch: int = 1,
    ) -> None:
        super().__init__([])
        self.batch = batch
        self._normals, self._uniforms, self._integers = map(iter, (normals, uniforms, integers))

    def split(self, name: str) -> "InjectedNoise":
        """The same numbers, in order: the other implementation knows no streams."""
        return self

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Return the next prepared tensor; its shape after the batch axis must be ``shape``."""
        return _checked(next(self._normals), shape)

    def uniform(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Return the next prepared tensor; its shape after the batch axis must be ``shape``."""
        return _checked(next(self._uniforms), shape)

    def integers(self, high: int, *shape: int) -> Int[Tensor, "b ..."]:
        """Return the next prepared tensor; its shape after the batch axis must be ``shape``."""
        del high
        return _checked(next(self._integers), shape)


def _checked(prepared: Tensor, shape: tuple[int, ...]) -> Tensor:
    if prepared.shape[1:] != shape:
        raise ValueError(f"injected noise is {tuple(prepared.shape[1:])}, {shape} was asked for")
    return prepared
