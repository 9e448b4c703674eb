import math

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from unclip.clip.clip import Clip, ClipConfig, unit
from unclip.clip.losses import gather, local_gradients, sigmoid_loss, softmax_loss
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.randomness import Randomness
from unclip.types import Batch

CAPTIONS = ("red cat", "blue", "빨간 사과", "", "owl", "two hearts")
PROCESSES = 2


def random_pairs(count=5, d=4):
    torch.manual_seed(0)
    pairs = torch.randn(2, count, d, dtype=torch.float64)
    return torch.nn.functional.normalize(pairs, dim=-1)


def test_softmax_loss_is_its_formula():
    image, text = random_pairs()
    scale = torch.tensor(7.0, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        row = [math.exp(7 * float(image[i] @ text[j])) for j in range(5)]
        column = [math.exp(7 * float(image[j] @ text[i])) for j in range(5)]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    losses = softmax_loss(image, text, scale)
    assert losses["loss"].item() == pytest.approx(total / 10, rel=1e-12)
    nearest = (image @ text.T).argmax(dim=1) == torch.arange(5)
    assert losses["accuracy"].item() == pytest.approx(nearest.double().mean().item())


def test_softmax_loss_of_orthogonal_pairs():
    eye = torch.eye(6, dtype=torch.float64)
    loss = softmax_loss(eye, eye, torch.tensor(3.0))["loss"].item()
    assert loss == pytest.approx(math.log(1 + 5 * math.exp(-3)), rel=1e-12)


def test_sigmoid_loss_is_its_formula():
    image, text = random_pairs()
    scale, bias = torch.tensor([9.0, -2.5], dtype=torch.float64)
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 9 * float(image[i] @ text[j]) - 2.5
            total += math.log(1 + math.exp(-logit if i == j else logit))
    losses = sigmoid_loss(image, text, scale, bias)
    assert losses["loss"].item() == pytest.approx(total / 5, rel=1e-12)


def test_losses_are_computed_in_float32_under_autocast():
    image, text = random_pairs(8, 16).float()
    scale = torch.tensor(100.0)
    expected = softmax_loss(image, text, scale)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(softmax_loss(image, text, scale)["loss"], expected)


def test_alone_nothing_is_gathered():
    x = torch.randn(3, 4)
    assert gather(x) is x


def clip_of(loss):
    torch.manual_seed(0)
    config = ClipConfig(
        image=ViTConfig(size=8, patch=4, width=16, depth=1, heads=2, keep=0.5),
        text=TextConfig(context=16, width=16, depth=1, heads=2, vocabulary=259),
        embedding=8,
        loss=loss,
        planned_batch=6,
    )
    return Clip.from_config(config).double()


def step(loss, rows):
    """Loss and gradients of the given rows of the batch of six."""
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    captions = CAPTIONS[rows]
    batch = Batch(keys=captions, images=images[rows], captions=captions)
    clip = clip_of(loss)
    value = clip(batch, Randomness(list(range(6))[rows]))["loss"]
    value.backward()
    return value.detach(), [parameter.grad for parameter in clip.parameters()]


def step_alone(rank):
    """Gradients of a process's own share of the softmax loss; the rows of others are constants."""
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    clip, own = clip_of("softmax"), slice(3 * rank, 3 * rank + 3)
    ids, mask, _ = clip.tokenizer.encode(CAPTIONS, 16)
    image = unit(clip.network.image(clip.pixels(images), Randomness(range(6))))
    text = unit(clip.network.text(ids, mask)[0])
    mixed = []
    for rows in (image, text):
        constants = rows.detach().clone()
        mixed.append(torch.cat([constants[: own.start], rows[own], constants[own.stop :]]))
    scale, targets = clip.network.logit_scale.exp(), torch.arange(own.start, own.stop)
    loss = sum(
        torch.nn.functional.cross_entropy(scale * mine[own] @ others.T, targets)
        for mine, others in (mixed, mixed[::-1])
    )
    return torch.autograd.grad(loss / 2, list(clip.parameters()))


def work(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    results = {}
    for loss in ("softmax", "sigmoid"):
        value, gradients = step(loss, slice(3 * rank, 3 * rank + 3))
        for tensor in (value, *gradients):  # as DDP averages
            dist.all_reduce(tensor)
            tensor /= PROCESSES
        results[loss] = (value, gradients)
    with local_gradients():
        results["alone"] = step("softmax", slice(3 * rank, 3 * rank + 3))[1]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_together_equal_one_process(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=PROCESSES)
    for rank in range(PROCESSES):
        results = torch.load(tmp_path / f"{rank}.pt")
        for loss in ("softmax", "sigmoid"):
            value, gradients = step(loss, slice(0, 6))
            torch.testing.assert_close(results[loss][0], value, rtol=1e-12, atol=0)
            assert any(gradient.abs().max() > 1e-3 for gradient in gradients)
            for together, alone in zip(results[loss][1], gradients, strict=True):
                torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)
        for mine, expected in zip(results["alone"], step_alone(rank), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
