from dataclasses import replace

import pytest
import torch

from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.decoder.network import DecoderNetwork, DecoderNetworkConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.nn.caption_encoder import CaptionEncoder, CaptionEncoderConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.randomness import InjectedNoise, Randomness
from unclip.types import Batch, TextFeatures, finish

D, F, WIDTH = 16, 24, 32

CAPTION = CaptionEncoderConfig(
    vocabulary=50, context=8, transformer=TransformerConfig(width=WIDTH, depth=2, heads=2)
)
CLIP_STATES = ClipStatesConfig(states=F, unconditional_tokens=2)
STORED = ClipStatesConfig(states=F, unconditional="stored", unconditional_tokens=2)
KINDS = pytest.mark.parametrize(
    "text", [CAPTION, CLIP_STATES, NoTextConfig()], ids=lambda c: c.kind
)


def config(text=CAPTION, image=None, **values) -> DecoderConfig:
    unet = UNetConfig(
        in_channels=3,
        out_channels=6,
        channels=32,
        multipliers=(1, 2),
        depth=1,
        attention=(2,),
        head_channels=32,
        context_width=WIDTH,
        groups=8,
    )
    image = image or ImageEmbeddingConfig()
    network = DecoderNetworkConfig(unet=unet, embedding=D, text=text, image=image)
    return DecoderConfig(size=8, network=network, **values)


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return module.eval()


def captions(batch: int, seed: int = 0, tokens: int = 5) -> TextFeatures:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(tokens) < torch.randint(2, tokens + 1, (batch, 1), generator=generator)
    ids = torch.randint(1, 50, (batch, tokens), generator=generator) * mask
    return TextFeatures(
        embedding=torch.randn(batch, D, generator=generator),
        states=torch.randn(batch, tokens, F, generator=generator),
        mask=mask,
        caption=ids,
        caption_mask=mask,
    )


def embeddings(batch: int, seed: int = 0) -> torch.Tensor:
    z = torch.randn(batch, D, generator=torch.Generator().manual_seed(100 + seed))
    return torch.nn.functional.normalize(z, dim=-1)


def output(network: DecoderNetwork, z, text, drop_image=False, drop_text=False, batch=3):
    x = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    drops = (torch.full((batch,), drop) for drop in (drop_image, drop_text))
    with torch.no_grad():
        condition = network.condition(z, text, *drops)
        return network(x, torch.full((batch,), 300), condition)


def draw(decoder: Decoder, z, text, *, seeds=(0, 1, 2), **options) -> torch.Tensor:
    chosen = SamplingOptions(**{"sampler": "ddim", "steps": 3, **options})
    return finish(decoder.sample(z, text, chosen, Randomness(seeds)))


# --- conditioning ----------------------------------------------------------------------------


@KINDS
def test_every_condition_that_is_present_matters(text):
    network = randomise(DecoderNetwork(config(text).network))
    plain = output(network, embeddings(3), captions(3))
    assert not torch.allclose(plain, output(network, embeddings(3, 1), captions(3)))
    other = output(network, embeddings(3), captions(3, 1))
    assert torch.equal(plain, other) == isinstance(text, NoTextConfig)


@KINDS
def test_a_dropped_image_embedding_is_absent_from_both_paths(text):
    network = randomise(DecoderNetwork(config(text).network))
    results = [output(network, embeddings(3, s), captions(3), drop_image=True) for s in (0, 1)]
    missing = output(network, None, captions(3))
    assert torch.equal(*results)
    assert torch.equal(results[0], missing)


@KINDS
def test_a_dropped_caption_is_absent(text):
    network = randomise(DecoderNetwork(config(text).network))
    results = [output(network, embeddings(3), captions(3, s), drop_text=True) for s in (0, 1)]
    missing = output(network, embeddings(3), None)
    assert torch.equal(*results)
    torch.testing.assert_close(results[0], missing)


def test_image_embedding_reaches_both_time_embedding_and_tokens():
    network = randomise(DecoderNetwork(config().network))
    drops = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        first, second = (network.image(embeddings(2, seed), drops) for seed in (0, 1))
    assert first.tokens.shape == (2, 4, WIDTH)
    assert not torch.allclose(first.tokens, second.tokens)
    assert not torch.allclose(first.embedding, second.embedding)


def test_drops_are_per_sample():
    network = randomise(DecoderNetwork(config().network))
    z = embeddings(2)
    drop = torch.tensor([True, False])
    with torch.no_grad():
        mixed = network.image(z, drop)
        full = network.image(z, ~drop | drop)
        none = network.image(z, ~drop & drop)
    torch.testing.assert_close(mixed.tokens, torch.stack([full.tokens[0], none.tokens[1]]))
    torch.testing.assert_close(mixed.embedding, torch.stack([full.embedding[0], none.embedding[1]]))


def test_channel_major_tokens_are_interleaved():
    """Karlo: token j is elements j, j + 4, j + 8 … of the projection."""
    orders = ("token_major", "channel_major")
    networks = [
        randomise(DecoderNetwork(config(image=ImageEmbeddingConfig(token_order=order)).network))
        for order in orders
    ]
    z, drop = embeddings(2), torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        by_token, by_channel = (network.image(z, drop).tokens for network in networks)
    flat = by_token.flatten(1)
    assert torch.equal(by_channel[:, 1], flat[:, 1::4])
    assert torch.equal(by_token[:, 1], flat[:, WIDTH : 2 * WIDTH])


def test_embeddings_are_scaled_to_the_size_of_pixels():
    assert DecoderNetwork(config().network).image.scale == pytest.approx(0.5375 * D**0.5)
    image = ImageEmbeddingConfig(scale=1.0)
    assert DecoderNetwork(config(image=image).network).image.scale == 1.0


def test_zeros_can_stand_in_for_a_dropped_embedding():
    network = randomise(DecoderNetwork(config(image=ImageEmbeddingConfig(null="zeros")).network))
    assert torch.equal(output(network, None, None), output(network, torch.zeros(3, D), None))


@pytest.mark.parametrize("text", [CAPTION, CLIP_STATES], ids=lambda c: c.kind)
def test_tokens_beyond_a_caption_have_no_effect(text):
    network = randomise(DecoderNetwork(config(text).network))
    features = captions(3)
    assert not features.mask.all()
    noisy = replace(
        features,
        states=torch.where(features.mask[..., None], features.states, 9.0),
        caption=torch.where(features.caption_mask, features.caption, 3),
    )
    plain = output(network, embeddings(3), features)
    assert torch.equal(plain, output(network, embeddings(3), noisy))
    longer = replace(
        features,
        states=torch.nn.functional.pad(features.states, (0, 0, 0, 2), value=5.0),
        mask=torch.nn.functional.pad(features.mask, (0, 2)),
        caption=torch.nn.functional.pad(features.caption, (0, 2), value=5),
        caption_mask=torch.nn.functional.pad(features.caption_mask, (0, 2)),
    )
    torch.testing.assert_close(plain, output(network, embeddings(3), longer))


def test_caption_encoder_sees_both_ways():
    """The first state depends on the last token, the last on the first: no causal mask."""
    encoder = randomise(CaptionEncoder(CAPTION))
    ids = torch.arange(1, 9)[None]
    mask = torch.ones(1, 8, dtype=torch.bool)
    with torch.no_grad():
        states = encoder(ids, mask)
        last_changed = encoder(torch.where(ids == 8, 20, ids), mask)
        first_changed = encoder(torch.where(ids == 1, 20, ids), mask)
    assert not torch.allclose(states[:, 0], last_changed[:, 0])
    assert not torch.allclose(states[:, -1], first_changed[:, -1])


def test_a_caption_longer_than_the_context_is_named():
    with pytest.raises(OptionError, match="reads 8 tokens but was given 9"):
        CaptionEncoder(CAPTION)(
            torch.ones(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.bool)
        )


def test_the_papers_caption_encoder_has_1_2_billion_parameters():
    with torch.device("meta"):
        encoder = CaptionEncoder(CaptionEncoderConfig())
    transformer = sum(p.numel() for p in encoder.transformer.parameters())
    vocabulary = encoder.tokens.weight.numel()
    assert transformer / 1e9 == pytest.approx(1.21, abs=0.005)
    assert vocabulary / 1e9 == pytest.approx(0.10, abs=0.005)


def test_stored_null_is_the_empty_prompt():
    decoder = Decoder(config(STORED))
    randomise(decoder)
    with pytest.raises(CheckpointError, match="empty prompt"):
        draw(decoder, embeddings(3), captions(3), guidance=2.0)
    assert draw(decoder, embeddings(3), captions(3)).isfinite().all()
    empty = captions(1, seed=3)
    empty = replace(empty, mask=torch.tensor([[True, True, False, False, False]]))
    decoder.network.text.unconditional.store(empty)
    dropped = output(decoder.network, embeddings(3), captions(3), drop_text=True)
    asked = output(decoder.network, embeddings(3), empty.take(torch.zeros(3, dtype=torch.long)))
    torch.testing.assert_close(dropped, asked)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_stored_null_is_never_rounded(dtype):
    text = Decoder(config(STORED)).network.text
    empty = captions(1, seed=3)
    text.unconditional.store(replace(empty, mask=torch.tensor([[True, True, False, False, False]])))
    text.to(dtype)
    assert text.to_time.weight.dtype == dtype
    assert torch.equal(text.unconditional.embedding.double(), empty.embedding[0].double())
    assert torch.equal(text.unconditional.states.double(), empty.states[0, :2].double())


# --- training --------------------------------------------------------------------------------


def test_the_four_regimes_are_45_45_5_5_percent():
    decoder = Decoder(config())
    drop_image, drop_text = decoder.draw_drops(Randomness(range(100), per_stream=1000))
    shares = {
        (image, text): ((drop_image == image) & (drop_text == text)).float().mean().item()
        for image in (False, True)
        for text in (False, True)
    }
    expected = {(False, False): 0.45, (False, True): 0.45, (True, False): 0.05, (True, True): 0.05}
    assert shares == pytest.approx(expected, abs=0.005)


def batch_of(images: torch.Tensor) -> Batch:
    count = len(images)
    return Batch(
        keys=tuple(map(str, range(count))),
        images=images,
        text=captions(count),
        image_embedding=embeddings(count),
    )


@KINDS
def test_overfits_one_batch(text):
    torch.manual_seed(0)
    decoder = Decoder(config(text))
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = batch_of(images)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = decoder(batch, Randomness(range(4)))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_patches_fit_a_batch_too():
    """The patch variant trains, and samples images of full resolution."""
    torch.manual_seed(0)
    patched = config(NoTextConfig()).override({"network.unet.patch": "2", "size": "16"})
    decoder = Decoder(patched)
    batch = batch_of(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = decoder(batch, Randomness(range(2)))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    assert draw(decoder, embeddings(3), None).shape == (3, 3, 16, 16)


def test_every_parameter_is_trained():
    decoder = Decoder(config(CLIP_STATES, image_drop=0.5))
    randomise(decoder).train()
    decoder(batch_of(torch.zeros(16, 3, 8, 8)), Randomness(range(16)))["loss"].backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_the_same_randomness_gives_the_same_loss():
    decoder = Decoder(config())
    randomise(decoder)
    batch = batch_of(torch.zeros(4, 3, 8, 8))
    first, second, other = (decoder(batch, Randomness(range(s, s + 4))) for s in (0, 0, 9))
    assert torch.equal(first["loss"], second["loss"])
    assert not torch.equal(first["loss"], other["loss"])


# --- sampling --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return randomise(Decoder(config()))


def test_start_needs_an_image_to_start_from(decoder):
    options = SamplingOptions(sampler="ddim", steps=2, start=0.5)
    with pytest.raises(OptionError, match=r"start 0\.5"):
        finish(decoder.sample(embeddings(1), None, options, Randomness([0])))
    x_T = torch.zeros(1, 3, 8, 8)
    drawn = finish(decoder.sample(embeddings(1), None, options, Randomness([0]), x_T=x_T))
    assert drawn.shape == x_T.shape


def test_guidance_mixes_the_conditional_and_the_unconditional_network(decoder):
    z, text, scale = embeddings(2), captions(2), 3.0
    x = torch.randn(2, 3, 8, 8)
    t = torch.tensor([400, 400])
    options = SamplingOptions(sampler="ddim", steps=2, guidance=scale)
    network = decoder._denoiser(z, text, 2, options)
    drops = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        seen, blind = (
            decoder.network(x, t, decoder.network.condition(z, text, drop, drop)) for drop in drops
        )
    result = network(x, t)
    torch.testing.assert_close(result[:, :3], blind[:, :3] + scale * (seen - blind)[:, :3])
    torch.testing.assert_close(result[:, 3:], seen[:, 3:])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("with_text", [True, False])
def test_any_condition_may_be_missing(decoder, guidance, with_image, with_text):
    z = embeddings(3) if with_image else None
    text = captions(3) if with_text else None
    images = draw(decoder, z, text, guidance=guidance)
    assert images.shape == (3, 3, 8, 8)
    assert images.isfinite().all()
    if not with_image and not with_text:
        unguided = draw(decoder, z, text)
        torch.testing.assert_close(images, unguided)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "ancestral", "steps": 4},
        {"sampler": "ddim", "steps": 4, "eta": 1.0},
        {"sampler": "dpm++", "steps": 4, "clip": "dynamic"},
        {"sampler": "unipc", "steps": 4, "guidance": 2.0, "guidance_interval": (0.2, 0.8)},
    ],
)
def test_an_image_depends_on_its_own_seed_alone(decoder, options):
    alone = draw(
        decoder, embeddings(3)[1:2], captions(3).take(torch.tensor([1])), seeds=(5,), **options
    )
    among = draw(decoder, embeddings(3), captions(3), seeds=(4, 5, 6), **options)
    torch.testing.assert_close(alone[0], among[1], atol=1e-4, rtol=1e-4)


def test_noise_can_be_given(decoder):
    x_T = torch.randn(3, 3, 8, 8)
    options = SamplingOptions(sampler="ddim", steps=3)
    given = finish(
        decoder.sample(embeddings(3), captions(3), options, Randomness(range(3)), x_T=x_T)
    )
    injected = finish(decoder.sample(embeddings(3), captions(3), options, InjectedNoise([x_T])))
    assert torch.equal(given, injected)


def test_inversion_finds_the_noise(decoder):
    """Round trip of an image the decoder made itself; its error falls as steps grow."""
    z, text = embeddings(2), captions(2)
    errors = []
    for steps in (10, 40):
        options = SamplingOptions(sampler="ddim", steps=steps, clip="none", spacing="strided")
        x_T = 0.1 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
        sampled = finish(decoder.sample(z, text, options, Randomness((0, 1)), x_T=x_T))
        found = finish(decoder.invert(sampled, z, text, options))
        again = finish(decoder.sample(z, text, options, Randomness((0, 1)), x_T=found))
        errors.append(((again - sampled).std() / sampled.std()).item())
    assert errors[1] < errors[0]


def test_the_first_noise_of_an_inversion_is_as_loud_as_the_config_says():
    plain, loud = (randomise(Decoder(config(first_noise=scale))).eval() for scale in (1.0, 2.5))
    z, noise = embeddings(2), torch.randn(2, 3, 8, 8)
    images = torch.randn(2, 3, 8, 8).clamp(-1, 1)
    options = SamplingOptions(sampler="ddim", steps=5, clip="none", spacing="strided")

    def first(decoder: Decoder, noise: torch.Tensor | None, iterations: int = 0) -> torch.Tensor:
        walk = decoder.invert(images, z, None, options, iterations=iterations, noise=noise)
        return next(walk).sample

    assert torch.equal(first(loud, noise), first(plain, 2.5 * noise))
    assert not torch.equal(first(loud, noise), first(plain, noise))
    assert torch.equal(first(loud, None), first(plain, None))
    assert torch.equal(first(loud, noise, iterations=3), first(plain, noise))


def test_what_neighbours_share_of_that_noise_is_as_loud_as_the_config_says():
    """Local means of constant noise are the noise, of a checkerboard a ninth of it, of white noise
    a third as loud and correlated with it by a ninth of its variance."""
    plain, coarse = (randomise(Decoder(config(coarse_noise=gain))).eval() for gain in (1.0, 3.0))
    z, images = embeddings(1), torch.randn(1, 3, 8, 8).clamp(-1, 1)
    options = SamplingOptions(sampler="ddim", steps=5, clip="none", spacing="strided")

    def first(decoder: Decoder, noise: torch.Tensor, iterations: int = 0) -> torch.Tensor:
        walk = decoder.invert(images, z, None, options, iterations=iterations, noise=noise)
        return next(walk).sample

    flat = torch.ones(1, 3, 8, 8)
    assert torch.allclose(first(coarse, flat), first(plain, 3 * flat))
    assert torch.allclose(first(coarse, flat, iterations=3), first(plain, 3 * flat, iterations=3))
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).mul(2).sub(1).float()
    board = board.expand(1, 3, 8, 8)
    found, wanted = first(coarse, board), first(plain, (1 + 2 / 9) * board)
    assert torch.allclose(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-6)
    white = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    still = first(plain, torch.zeros(1, 3, 8, 8))
    inside = [
        torch.cat([first(decoder, noise[None]) - still for noise in white])[..., 1:-1, 1:-1].std()
        for decoder in (coarse, plain)
    ]
    assert inside[0] / inside[1] == pytest.approx((1 + 2 * 2 / 9 + 2**2 / 9) ** 0.5, rel=0.03)


def test_only_a_network_that_says_x0_is_doubted_near_clean_data():
    """ε̂ of the others is what they say, no error of x̂0 over σ."""
    options = SamplingOptions(sampler="ddim", steps=5, clip="none", spacing="strided")
    images, z, noise = torch.randn(2, 3, 8, 8), embeddings(2), torch.randn(2, 3, 8, 8)

    def error(target: str) -> float:
        diffusion = DiffusionConfig(target=target, variance="learned_range")
        decoder = randomise(Decoder(config(diffusion=diffusion))).eval()
        return decoder.x0_error(images, z, options, noise)

    assert error("x0") > 0
    assert error("v") == error("noise") == 0


def test_two_colours_are_reproduced():
    """P(x | z_i) of uniform red and blue images: each embedding gets its colour."""
    torch.manual_seed(0)
    # x0 as the target: the quickest to learn a flat colour.
    diffusion = DiffusionConfig(target="x0", variance="learned_range")
    decoder = Decoder(config(NoTextConfig(), diffusion=diffusion))
    colours = torch.tensor([[0.8, -0.6, -0.6], [-0.6, -0.4, 0.8]])
    z = embeddings(2)
    pick = torch.arange(16) % 2
    batch = Batch(
        keys=tuple("ab" * 8),
        images=colours[pick][:, :, None, None].expand(-1, -1, 8, 8).contiguous(),
        image_embedding=z[pick],
    )
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(100):
        optimizer.zero_grad()
        decoder(batch, Randomness.for_step(0, step, 0, 16))["loss"].backward()
        optimizer.step()
    decoder.eval()
    for options in ({"sampler": "dpm++", "steps": 12}, {"sampler": "ancestral", "steps": 40}):
        images = draw(decoder, z[torch.tensor([0, 1, 1, 0])], None, seeds=range(4), **options)
        expected = colours[torch.tensor([0, 1, 1, 0])]
        assert (images.mean(dim=(2, 3)) - expected).abs().max() < 0.1
        assert images.std(dim=(2, 3)).max() < 0.1


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda c: {"size": 9}, "multiple"),
        (lambda c: {"diffusion": {"variance": "fixed_small"}}, "set network.unet.out_channels=3"),
        (lambda c: {"network": {**c["network"], "text": {"kind": "caption_encoder"}}}, "width"),
        (lambda c: {"network": {**c["network"], "text": {"kind": "other"}}}, "kind"),
    ],
)
def test_contradictory_configs_are_named(change, culprit):
    values = config().model_dump()
    with pytest.raises(OptionError, match=culprit):
        DecoderConfig.parse({**values, **change(values)}, source="test")
    assert DecoderConfig.parse(values, source="test") == config()
