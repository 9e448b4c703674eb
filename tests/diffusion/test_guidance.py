import torch
from diffusion_oracles import noises

from unclip.diffusion.guidance import guided, network_at
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample, sampling_grid
from unclip.randomness import Randomness
from unclip.types import finish


class Passes:
    """A conditional and a joint network that record their batches; outputs have 2 channels."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int]] = []

    def one(self, x: torch.Tensor, sign: float) -> torch.Tensor:
        return torch.cat([torch.tanh(sign * x), torch.cos(sign + x)], dim=1)

    def conditional(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.log.append(("conditional", len(x), int(t[0])))
        return self.one(x, 1.0)

    def joint(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert len(t) == len(x)
        self.log.append(("joint", len(x), int(t[0])))
        first, second = x.chunk(2)
        assert torch.equal(first, second)
        return torch.cat([self.one(first, 1.0), self.one(second, -0.5)])


X, T_3 = noises(1, 3, 1, 4, 4, dtype=torch.float32)[0], torch.full((3,), 500)


def test_scale_one_is_the_conditional_pass_alone() -> None:
    passes = Passes()
    network = guided(passes.conditional, passes.joint, 1.0, mixed=1)
    assert torch.equal(network(X, T_3), passes.one(X, 1.0))
    assert passes.log == [("conditional", 3, 500)]


def test_scale_zero_is_the_unconditional_pass_with_the_conditional_variance() -> None:
    passes = Passes()
    output = guided(passes.conditional, passes.joint, 0.0, mixed=1)(X, T_3)
    assert torch.equal(output[:, :1], passes.one(X, -0.5)[:, :1])
    assert torch.equal(output[:, 1:], passes.one(X, 1.0)[:, 1:])
    assert passes.log == [("joint", 6, 500)]
    everything = guided(passes.conditional, passes.joint, 0.0)(X, T_3)
    assert torch.equal(everything, passes.one(X, -0.5))


def test_only_the_mixed_channels_are_extrapolated() -> None:
    passes = Passes()
    output = guided(passes.conditional, passes.joint, 3.0, mixed=1)(X, T_3)
    c, u = passes.one(X, 1.0), passes.one(X, -0.5)
    torch.testing.assert_close(output[:, :1], (u + 3 * (c - u))[:, :1])
    assert torch.equal(output[:, 1:], c[:, 1:])


def test_interval_skips_the_second_pass_elsewhere() -> None:
    passes = Passes()
    network = guided(passes.conditional, passes.joint, 2.0, (0.2, 0.6), mixed=1)
    process = Process(DiffusionConfig(variance="learned_range"))
    options = SamplingOptions(sampler="ancestral", steps=21)
    finish(sample(process, network, X, options, Randomness([1, 2, 3]), stage="test"))
    visited = sampling_grid(process, options).timesteps.flip(0).tolist()
    wanted = [("joint", 6, t) if 200 <= t <= 600 else ("conditional", 3, t) for t in visited]
    assert passes.log == wanted
    assert 0 < sum(kind == "joint" for kind, _, _ in wanted) < 21
    # Called directly, the network reads t itself; another T moves the interval.
    passes.log.clear()
    network(X, T_3)
    guided(passes.conditional, passes.joint, 2.0, (0.2, 0.6), total=2000)(X, T_3)
    guided(passes.conditional, passes.joint, 2.0, (0.2, 0.6), total=501)(X, T_3)
    assert [kind for kind, _, _ in passes.log] == ["joint", "joint", "conditional"]


def test_a_plain_network_is_left_alone() -> None:
    passes = Passes()
    assert network_at(passes.conditional, 7) == passes.conditional


def test_half_precision_passes_are_mixed_in_float32() -> None:
    def joint(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x[:3], 1.0), torch.full_like(x[3:], 0.9)]).bfloat16()

    output = guided(joint, joint, 7.5)(X, T_3)
    c, u = torch.tensor([1.0, 0.9]).bfloat16().float()
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, (u + 7.5 * (c - u)).expand_as(X), rtol=1e-6, atol=0)
