import copy
import pickle

import pytest
import torch
from torch import nn

from unclip.packing import PackedConv2d, PackedLinear, can_pack, pack
from unclip.runtime import choose_runtime, place

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this PyTorch or processor has no packed weights"
)

LAYERS = {
    "linear": (nn.Linear(48, 32), (2, 5, 48)),
    "linear without bias": (nn.Linear(48, 32, bias=False), (7, 48)),
    "3×3": (nn.Conv2d(16, 24, 3, padding=1), (2, 16, 9, 7)),
    "strided": (nn.Conv2d(16, 24, 3, stride=2, padding=1), (2, 16, 9, 8)),
    "1×1": (nn.Conv2d(16, 24, 1, bias=False), (2, 16, 9, 7)),
    "grouped, dilated": (nn.Conv2d(16, 24, 3, dilation=2, groups=4), (2, 16, 9, 7)),
    "few channels": (nn.Conv2d(3, 5, 3, padding=1), (1, 3, 9, 7)),
    "padding by name": (nn.Conv2d(16, 24, 3, padding="same"), (2, 16, 9, 7)),
    "mirrored border": (nn.Conv2d(16, 24, 3, padding=1, padding_mode="reflect"), (2, 16, 9, 7)),
}


def both(name: str, dtype: torch.dtype, memory: torch.memory_format):
    layer, shape = LAYERS[name]
    plain = nn.Sequential(copy.deepcopy(layer)).to(dtype).to(memory_format=memory)
    packed = copy.deepcopy(plain).requires_grad_(False)
    pack(packed)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return plain, packed, x.to(memory_format=memory) if x.ndim == 4 else x


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_layers_compute_what_plain_ones_do(name, dtype, tolerance, memory):
    if not can_pack(dtype):
        pytest.skip("no kernel for this dtype here")
    plain, packed, x = both(name, dtype, memory)
    with torch.no_grad():
        expected, result = plain(x), packed(x)
    assert result.dtype == dtype
    if memory is torch.channels_last:
        assert result.stride() == expected.stride()
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
def test_a_convolution_is_packed_anew_for_another_shape():
    plain = nn.Conv2d(16, 24, 3, padding=1)
    packed = PackedConv2d(plain)
    for shape in ((2, 16, 9, 7), (1, 16, 64, 64), (5, 16, 8, 8), (2, 16, 9, 7)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(packed(x), plain(x), rtol=0, atol=1e-5)
        assert packed.fits == x.shape
        assert packed.weight.is_mkldnn
    assert torch.equal(packed.state_dict()["weight"], plain.weight)


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_and_gradient_of_the_input_are_as_before(name):
    plain, packed, x = both(name, torch.float32, torch.channels_last)
    before, after = plain.state_dict(), packed.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    gradients = []
    for network in (plain, packed):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(network(leaf).square().sum(), leaf)[0])
    torch.testing.assert_close(*gradients)


def test_layers_are_found_wherever_they_are():
    network = nn.ModuleDict({"deep": nn.Sequential(nn.Linear(4, 4), nn.Conv2d(3, 4, 3))})
    pack(network)
    assert [type(layer) for layer in network["deep"]] == [PackedLinear, PackedConv2d]


@pytest.mark.parametrize("name", ["linear", "linear without bias", "3×3"])
@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        lambda network: pickle.loads(pickle.dumps(network)),
        lambda network: network.to("cpu", memory_format=torch.channels_last),
        lambda network: network.to(torch.float64).to(torch.float32),
        lambda network: network.to("meta").to_empty(device="cpu"),
    ],
    ids=["copied", "pickled", "rearranged", "widened and narrowed", "emptied"],
)
def test_packed_layers_can_be_moved_and_copied_and_filled_again(name, change):
    plain, packed, x = both(name, torch.float32, torch.channels_last)
    state = plain.state_dict()
    changed = change(packed)
    changed.load_state_dict(state)
    assert changed[0].weight.is_mkldnn
    assert all(torch.equal(state[key], value) for key, value in changed.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(changed(x), plain(x))


def test_what_cannot_be_packed_still_computes():
    plain, packed, x = both("3×3", torch.float32, torch.channels_last)
    packed.double()
    assert not packed[0].weight.is_mkldnn
    assert torch.equal(packed(x.double()), plain.double()(x.double()))
    assert not can_pack(torch.float64)


def test_copies_do_not_share_weights():
    _, packed, x = both("linear", torch.float32, torch.contiguous_format)
    before = packed(x)
    other = copy.deepcopy(packed)
    other.load_state_dict({key: value + 1 for key, value in other.state_dict().items()})
    assert torch.equal(packed(x), before)
    assert not torch.equal(other(x), before)


def test_networks_placed_for_inference_on_cpus_are_packed_and_no_others():
    runtime = choose_runtime("cpu")
    assert runtime.packed
    assert not choose_runtime("cpu", compile=True).packed
    for training in (False, True):
        network = nn.Sequential(nn.Linear(4, 4))
        place(network, runtime, training=training)
        assert (type(network[0]) is nn.Linear) == training


def test_a_network_may_be_placed_again():
    plain, packed, x = both("3×3", torch.float32, torch.channels_last)
    runtime = choose_runtime("cpu", "fp32")
    place(place(packed, runtime), runtime)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), plain(x))
