import torch
from einops import rearrange
from thumbnails import begin_with_thumbnails

from unclip.clip.thumbnail import Thumbnail
from unclip.decoder.layout import Layout, LayoutConfig

D, SCALE = 16, 2.15


def units(count: int, seed: int) -> torch.Tensor:
    draws = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(draws, dim=-1)


def begun(channels: int) -> tuple[Layout, Thumbnail]:
    torch.manual_seed(0)
    head = Thumbnail(D, 8)
    layout = Layout(LayoutConfig(side=4, channels=channels, hidden=2 * D), D, 32)
    begin_with_thumbnails(layout, SCALE, head, units(500, seed=1))
    return layout, head


@torch.no_grad()
def test_a_layout_with_room_for_all_pixels_is_the_thumbnail():
    layout, head = begun(channels=12)
    z = units(200, seed=2)
    cells = rearrange(head(z), "n c (h i) (w j) -> n h w (c i j)", h=4, w=4)
    painted = rearrange(layout(SCALE * z), "n c h w -> n h w c")
    # Turned and scaled, as principal components are: distances tell.
    theirs = torch.cdist(cells.flatten(1), cells.flatten(1))
    ours = torch.cdist(painted.flatten(1), painted.flatten(1))
    ratio = (ours / theirs)[theirs > 0.1 * theirs.mean()]
    assert ratio.std() < 0.03 * ratio.mean()


@torch.no_grad()
def test_a_small_layout_keeps_the_largest_part_and_its_first_channel_has_size_one():
    layout, head = begun(channels=3)
    z = units(500, seed=1)
    painted = rearrange(layout(SCALE * z), "n c h w -> (n h w) c")
    assert 0.9 < painted[:, 0].std() < 1.1
    cells = rearrange(head(z), "n c (h i) (w j) -> (n h w) (c i j)", h=4, w=4)
    cells -= cells.mean(dim=0)
    left = cells - painted @ torch.linalg.lstsq(painted, cells).solution
    values = torch.linalg.svdvals(cells).square()
    assert left.square().sum() < 1.1 * values[3:].sum() + 0.01 * values.sum()
