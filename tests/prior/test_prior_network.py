"""The prior's network: diffusers' PriorTransformer as oracle, invariants 7, 8 and 16 of §8."""

from dataclasses import replace

import pytest
import torch
from diffusers import PriorTransformer
from torch import Tensor

from unclip.errors import OptionError
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unconditional import pad
from unclip.prior.network import EXTRA, PriorNetwork, PriorNetworkConfig
from unclip.prior.space import EmbeddingSpace
from unclip.types import TextFeatures

D, F, CONTEXT = 24, 24, 10
SMALL = PriorNetworkConfig(
    embedding=D,
    text_width=F,
    context=CONTEXT,
    transformer=TransformerConfig(width=64, depth=3, heads=2),
)
KARLO = PriorNetworkConfig(
    embedding=768,
    text_width=768,
    context=77,
    transformer=TransformerConfig(width=2048, depth=20, heads=32),
    unconditional="stored",
    unconditional_tokens=2,
    text_scale=1,
)


STATISTICS = {"clip_mean": torch.zeros(1, D), "clip_std": torch.ones(1, D)}
"""Part of diffusers' network, of our stage."""


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
        parameter.data = noise.to(parameter.dtype)


def features(lengths: list[int], n: int = CONTEXT, d: int = D, f: int = F) -> TextFeatures:
    generator = torch.Generator().manual_seed(1)
    b = len(lengths)
    return TextFeatures(
        embedding=torch.nn.functional.normalize(torch.randn(b, d, generator=generator), dim=-1),
        states=torch.randn(b, n, f, generator=generator),
        mask=torch.arange(n) < torch.tensor(lengths)[:, None],
        caption=torch.zeros(b, 0, dtype=torch.long),
        caption_mask=torch.zeros(b, 0, dtype=torch.bool),
    )


def network(config: PriorNetworkConfig = SMALL) -> PriorNetwork:
    built = PriorNetwork(config).eval()
    randomise(built)
    return built


def inputs(b: int) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and "nothing dropped" for a batch."""
    x_t = torch.randn(b, D, generator=torch.Generator().manual_seed(2))
    return x_t, torch.arange(b) * 100 + 7, torch.zeros(b, dtype=torch.bool)


def as_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys and layouts -> those of diffusers' PriorTransformer."""
    top = {
        "states_in": "encoder_hidden_states_proj",
        "text_in": "embedding_proj",
        "time_in": "time_embedding",
        "noised_in": "proj_in",
        "norm": "norm_out",
        "out": "proj_to_clip_embeddings",
    }
    block = {
        "norm_1": "norm1",
        "norm_2": "norm3",
        "attention.out": "attn1.to_out.0",
        "mlp.0": "ff.net.0.proj",
        "mlp.2": "ff.net.2",
    }
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] in top:
            renamed[".".join([top[parts[0]], *parts[1:]])] = value
        elif parts[0] == "transformer":
            prefix, layer, kind = f"transformer_blocks.{parts[2]}", ".".join(parts[3:-1]), parts[-1]
            if layer == "attention.qkv":
                for name, third in zip("qkv", value.chunk(3), strict=True):
                    renamed[f"{prefix}.attn1.to_{name}.{kind}"] = third
            else:
                renamed[f"{prefix}.{block[layer]}.{kind}"] = value
        elif key == "final":
            renamed["prd_embedding"] = value[None, None]
        elif key == "positions":
            renamed["positional_embedding"] = value[None]
        else:
            assert parts[0] == "unconditional", key  # diffusers encodes the empty prompt each time
    return renamed


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-5)], ids=str
)
@pytest.mark.parametrize("t", [0, 500, 999])
def test_agrees_with_diffusers(dtype: torch.dtype, tolerance: float, t: int) -> None:
    ours = network(SMALL.model_copy(update={"text_scale": 1})).to(dtype)
    theirs = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=3,
        embedding_dim=D,
        num_embeddings=CONTEXT,
    )
    theirs = theirs.to(dtype).eval()
    theirs.load_state_dict(as_diffusers(ours.state_dict()) | STATISTICS)
    lengths = [1, 2, 5, CONTEXT]
    text, (x_t, _, none) = features(lengths), inputs(len(lengths))
    with torch.no_grad():
        expected = theirs(
            x_t.to(dtype), t, text.embedding.to(dtype), text.states.to(dtype), text.mask
        ).predicted_image_embedding
        got = ours(x_t, torch.full((len(lengths),), t), text, none)
    assert got.dtype == dtype
    assert (got - expected).abs().max() <= tolerance * expected.std()


def test_a_text_is_read_once_for_many_noised_embeddings() -> None:
    built, text, draws = network(), features([1, 2, 5, CONTEXT]), 3
    x_t, t, _ = inputs(4 * draws)
    none = torch.zeros(4, dtype=torch.bool)
    together = built.after(built.read(text, none), x_t, t)
    alone = [built(x, at, text, none) for x, at in zip(x_t.split(4), t.split(4), strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_gradients_are_the_same_when_activations_are_computed_twice() -> None:
    text, (x_t, t, none) = features([2, 7]), inputs(2)
    gradients = []
    for again in (False, True):
        built = network()
        built.transformer.gradient_checkpointing = again
        built(x_t, t, text, none).square().sum().backward()
        gradients.append({k: p.grad for k, p in built.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("qkv" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_karlos_layout_has_its_parameters_and_tensors() -> None:
    with torch.device("meta"):
        ours, theirs = PriorNetwork(KARLO), PriorTransformer()
        space = EmbeddingSpace("standardised", 768)
    statistics = {f"clip_{name}": table[None] for name, table in space.state_dict().items()}
    renamed = as_diffusers(ours.state_dict()) | statistics
    assert sum(tensor.numel() for tensor in renamed.values()) == 1_022_030_080
    assert len(renamed) == 338
    assert {k: v.shape for k, v in renamed.items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_paper_size() -> None:
    with torch.device("meta"):
        prior = PriorNetwork(PriorNetworkConfig())
    blocks = sum(p.numel() for p in prior.transformer.parameters())
    assert round(blocks / 1e9, 2) == 1.21


def sequence_and_outputs(built: PriorNetwork, text: TextFeatures) -> tuple[Tensor, Tensor]:
    """The sequence that enters the transformer and what leaves it, in one part or two."""
    x_t, t, none = inputs(len(text))
    return recorded(built, x_t, t, text, none)


def recorded(built: PriorNetwork, *arguments: object) -> tuple[Tensor, Tensor]:
    parts = []
    handle = built.transformer.register_forward_hook(
        lambda _, args, output: parts.append((args[0], output))
    )
    with torch.no_grad():
        built(*arguments)
    handle.remove()
    entering, leaving = zip(*parts, strict=True)
    return torch.cat(entering, dim=1), torch.cat(leaving, dim=1)


def test_the_sequence_is_text_zt_time_noised_zi_final() -> None:
    built = network()
    text, (x_t, t, none) = features([4, CONTEXT]), inputs(2)
    before, _ = sequence_and_outputs(built, text)
    assert before.shape == (2, CONTEXT + EXTRA, 64)

    def moved(**changes: Tensor) -> list[int]:
        """Which positions of the sequence a changed input reaches."""
        noised, at = changes.pop("x_t", x_t), changes.pop("t", t)
        entering, _ = recorded(built, noised, at, replace(text, **changes), none)
        return (entering != before).any(-1).any(0).nonzero().flatten().tolist()

    states = text.states.clone()
    states[:, 3] += 1
    assert moved(states=states) == [3]
    assert moved(embedding=text.embedding + 1) == [CONTEXT]
    assert moved(t=t + 1) == [CONTEXT + 1]
    assert moved(x_t=x_t + 1) == [CONTEXT + 2]
    with torch.no_grad():
        built.final.add_(1)
    after, _ = sequence_and_outputs(built, text)
    assert (after != before).any(-1).any(0).nonzero().flatten().tolist() == [CONTEXT + 3]


@pytest.mark.parametrize("causal", [True, False])
def test_earlier_positions_do_not_see_later_ones(causal: bool) -> None:
    built = network(SMALL.model_copy(update={"causal": causal}))
    text = features([CONTEXT])
    _, before = sequence_and_outputs(built, text)
    for position in range(CONTEXT):
        states = text.states.clone()
        states[:, position] += 1
        _, after = sequence_and_outputs(built, replace(text, states=states))
        unmoved = (after == before).all(-1)[0]
        assert unmoved[:position].all() == (causal or position == 0)
        assert not unmoved[position:].any()


def test_the_last_position_sees_every_real_token_and_no_padding() -> None:
    built, real = network(), 6
    text, (x_t, t, none) = features([real]), inputs(1)
    states = text.states.clone().requires_grad_()
    embedding = text.embedding.clone().requires_grad_()
    x_t.requires_grad_()
    output = built(x_t, t, replace(text, states=states, embedding=embedding), none)
    output.square().sum().backward()
    assert states.grad is not None
    reached = (states.grad[0] != 0).any(-1)
    assert reached.tolist() == [True] * real + [False] * (CONTEXT - real)
    assert embedding.grad is not None
    assert embedding.grad.any()
    assert x_t.grad is not None
    assert x_t.grad.any()
    with torch.no_grad():
        assert not torch.equal(built(x_t, t + 1, text, none), output)


def test_cutting_and_adding_padding_changes_nothing() -> None:
    built, (x_t, t, none) = network(), inputs(2)
    long = features([3, 5])
    short = replace(long, states=long.states[:, :5], mask=long.mask[:, :5])
    with torch.no_grad():
        expected = built(x_t, t, long, none)
        torch.testing.assert_close(built(x_t, t, short, none), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(built(x_t, t, pad(short, 9), none), expected, rtol=0, atol=1e-6)


def test_a_text_longer_than_the_context_is_named() -> None:
    text, (x_t, t, none) = features([3], n=CONTEXT + 1), inputs(1)
    with pytest.raises(OptionError, match="at most 10 text tokens but was given 11"):
        network()(x_t, t, text, none)


@pytest.mark.parametrize("kind", ["learned", "stored"])
def test_an_unconditional_pass_sees_noise_and_time_but_no_text(kind: str) -> None:
    config = {"unconditional": kind, "unconditional_tokens": 2}
    built = network(SMALL.model_copy(update=config))
    if kind == "stored":
        built.unconditional.store(features([2]))
    (x_t, t, none), text, other = inputs(2), features([4, 7]), features([9, 1], n=9)
    other = replace(other, states=-other.states, embedding=-other.embedding)
    with torch.no_grad():
        without = built(x_t, t, text, ~none)
        torch.testing.assert_close(without, built(x_t, t, other, ~none), rtol=0, atol=1e-6)
        assert not torch.allclose(without, built(x_t + 0.1, t, text, ~none))
        assert not torch.allclose(without, built(x_t, t + 50, text, ~none))
        mixed = built(x_t, t, text, torch.tensor([False, True]))
        torch.testing.assert_close(mixed[0], built(x_t, t, text, none)[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(mixed[1], without[1], rtol=0, atol=1e-6)


def test_a_stored_unconditional_pass_is_a_pass_on_the_empty_prompt() -> None:
    built = network(SMALL.model_copy(update={"unconditional": "stored", "unconditional_tokens": 2}))
    empty = features([2])
    assert not built.unconditional.measured
    built.unconditional.store(empty)
    assert built.unconditional.measured
    x_t, t, none = inputs(1)
    with torch.no_grad():
        expected = built(x_t, t, empty, none)
        torch.testing.assert_close(built(x_t, t, features([7]), ~none), expected)
    assert (
        not {"unconditional.embedding", "unconditional.states"}
        & dict(built.named_parameters()).keys()
    )
    assert {"unconditional.embedding", "unconditional.states"} <= built.state_dict().keys()


def test_learned_nulls_are_trained_both_together() -> None:
    built, (x_t, t, none) = network(), inputs(2)
    built(x_t, t, features([3, 4]), ~none).square().sum().backward()
    for null in (built.unconditional.embedding, built.unconditional.states):
        assert null.grad is not None
        assert null.grad.any()


def test_zt_enters_with_components_of_the_size_of_pixels() -> None:
    scaled, plain = network(), network(SMALL.model_copy(update={"text_scale": 1}))
    text, arguments = features([3, 4]), inputs(2)
    larger = replace(text, embedding=text.embedding * 0.5375 * D**0.5)
    with torch.no_grad():
        expected = plain(*arguments[:2], larger, arguments[2])
        torch.testing.assert_close(scaled(*arguments[:2], text, arguments[2]), expected)
