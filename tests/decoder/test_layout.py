import torch
from torch import nn

from unclip.decoder.conditioning import ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.layout import Layout, LayoutConfig
from unclip.decoder.network import DecoderNetwork, DecoderNetworkConfig
from unclip.nn.unet import UNet, UNetConfig

D = 16
UNET = UNetConfig(
    in_channels=3,
    out_channels=3,
    channels=32,
    multipliers=(1, 2),
    depth=1,
    attention=(2,),
    head_channels=32,
    context_width=32,
    groups=8,
)


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return module.eval()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_layout_enters_where_the_image_does():
    unet = randomise(UNet(UNET))
    x, y, t = draw(2, 3, 8, 8, seed=1), draw(2, 3, 8, 8, seed=2), torch.tensor([3, 900])
    # The entrance is affine, so another image's share of it can be handed over as a layout.
    share = nn.functional.conv2d(y, unet.entrance.weight, padding=1)
    assert torch.allclose(unet(x, t, layout=share), unet(x + y, t), atol=1e-5)
    assert not torch.allclose(unet(x, t), unet(x + y, t), atol=1e-2)


@torch.no_grad()
def test_a_picture_of_the_right_size_is_only_widened_and_a_larger_grid_interpolates():
    layout = randomise(Layout(LayoutConfig(side=4, channels=5, hidden=12), D, 32))
    picture = layout(draw(2, D))
    assert picture.shape == (2, 5, 4, 4)
    assert torch.equal(layout.spread(picture, (4, 4)), layout.widen(picture))
    flat = torch.ones(1, 5, 4, 4)
    inside = layout.spread(flat, (8, 12))[:, :, 1:-1, 1:-1]
    assert inside.shape == (1, 32, 6, 10)
    assert torch.allclose(inside, inside[:, :, :1, :1].expand_as(inside), atol=1e-6)


@torch.no_grad()
def test_a_dropped_z_i_paints_the_null_and_others_their_own():
    image = ImageEmbeddingConfig(layout=LayoutConfig(side=4, channels=5, hidden=12))
    config = DecoderNetworkConfig(unet=UNET, embedding=D, image=image, text=NoTextConfig())
    network = randomise(DecoderNetwork(config))
    z, x, t = draw(3, D, seed=3), draw(3, 3, 8, 8, seed=4), torch.tensor([0, 500, 999])
    keep, drop = torch.zeros(3, dtype=torch.bool), torch.tensor([False, True, False])

    def output(z, dropped):
        return network(x, t, network.condition(z, None, dropped, keep))

    none, mixed, all_kept = output(None, keep), output(z, drop), output(z, keep)
    assert torch.allclose(mixed[1], none[1], atol=1e-6)
    assert torch.allclose(mixed[[0, 2]], all_kept[[0, 2]], atol=1e-6)
    first = network.condition(z, None, keep, keep).first(1)
    assert torch.allclose(network(x[:1], t[:1], first), all_kept[:1], atol=1e-6)
    # Through the layout alone, too: silence the time embedding and the tokens.
    for path in (network.image.to_time, network.image.to_tokens):
        for parameter in path.parameters():
            nn.init.zeros_(parameter)
    assert not torch.allclose(output(z, keep), output(None, keep), atol=1e-3)
