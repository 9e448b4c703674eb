import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from unclip.errors import PromptError
from unclip.manipulation.options import Edit, Reconstruct
from unclip.manipulation.reconstruction import reconstruct
from unclip.manipulation.text_diff import edit, text_difference, trajectory
from unclip.types import finish


def rows(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 32, generator=generator), dim=1)


def test_the_trajectory_begins_at_z_i_to_the_last_bit() -> None:
    z, difference = 12 * rows(1, 0), rows(1, 1)
    turned = trajectory(z, difference, torch.linspace(0, 0.5, 5, dtype=torch.float64))
    assert torch.equal(turned[:1], z)
    torch.testing.assert_close(turned.norm(dim=1), z.norm().expand(5))


def test_theta_is_a_share_of_the_arc_towards_the_difference() -> None:
    z, difference = rows(1, 2), rows(1, 3)
    angle = torch.acos((z * difference).sum())
    (turned,) = trajectory(z, difference, torch.tensor([0.3], dtype=torch.float64))
    assert float(torch.acos((turned * z[0]).sum())) == pytest.approx(0.3 * float(angle), abs=1e-3)
    ahead = torch.acos((turned * difference[0]).sum())
    assert float(ahead) == pytest.approx(0.7 * float(angle), abs=1e-3)


def test_the_difference_has_unit_length_and_a_direction() -> None:
    text = rows(2, 4)
    found = text_difference(text)
    assert float(found.norm()) == pytest.approx(1)
    torch.testing.assert_close(found, normalize(text[:1] - text[1:], dim=1))
    torch.testing.assert_close(text_difference(text[:1]), text[:1])
    with pytest.raises(PromptError, match="no direction"):
        text_difference(text[[0, 0]])


def test_the_first_frame_is_the_reconstruction(model, photo, quick, pixels) -> None:
    options = quick(batch=1)
    how = Edit(to="a blue ball", origin="a red ball", frames=3)
    frames = finish(edit(model, photo("red"), how=how, options=options))
    (back,) = finish(reconstruct(model, photo("red"), how=Reconstruct(), options=options))
    assert np.array_equal(pixels(frames[0]), pixels(back))
    assert not np.array_equal(pixels(frames[2]), pixels(back))
    assert [frame.label for frame in frames] == ["θ 0.00", "θ 0.25", "θ 0.50"]
    alone = how.model_copy(update={"frames": 1})
    (goal,) = finish(edit(model, photo("red"), how=alone, options=options))
    assert np.array_equal(pixels(goal), pixels(frames[2]))
    assert goal.label == "θ 0.50"
