import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from unclip.checkpoint import load_pipeline, load_stage, save_stage
from unclip.decoder.decoder import Decoder
from unclip.errors import OptionError
from unclip.manipulation.embeddings import Embeddings
from unclip.manipulation.inputs import read_input
from unclip.manipulation.latents import embed_picture, invert, there_and_back
from unclip.manipulation.options import Reconstruct
from unclip.manipulation.reconstruction import keep_components, psnr, reconstruct
from unclip.options import GenerateOptions
from unclip.presets import preset
from unclip.prior.kinds import build_prior
from unclip.prior.pca import principal_components
from unclip.types import Batch, finish


def embeddings(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return normalize(torch.randn(rows, 32, generator=generator), dim=1)


def test_all_components_are_the_picture(model, photo, quick, pixels, tmp_path) -> None:
    file = tmp_path / "many.safetensors"
    Embeddings(embeddings(100), ("x",) * 100).save(file)
    how = Reconstruct(dimensions=(0, 4, 32))
    made = finish(reconstruct(model, photo("red"), file, how=how, options=quick(batch=1)))
    assert [picture.label for picture in made] == ["0 of 32", "4 of 32", "32 of 32"]
    assert not np.array_equal(pixels(made[0]), pixels(made[1]))
    more = finish(
        reconstruct(
            model, photo("red"), file, how=Reconstruct(dimensions=(32,)), options=quick(batch=1)
        )
    )
    assert np.array_equal(pixels(made[2]), pixels(more[0]))


def test_kept_components_approach_z_i() -> None:
    sample = embeddings(200)
    found = principal_components([sample])
    z = embeddings(201)[200:]
    cosines = [float((keep_components(found, z, k) * z).sum()) for k in range(33)]
    assert cosines[32] == pytest.approx(1, abs=1e-6)
    assert cosines[32] > cosines[16] > cosines[4]
    assert float(keep_components(found, 7 * z, 5).norm()) == pytest.approx(7, rel=1e-5)


def test_dimensions_need_embeddings(model, photo, quick, tmp_path) -> None:
    file = tmp_path / "few.npy"
    np.save(file, embeddings(3).numpy())

    def refuse(match: str, keep: int, *given) -> None:
        how = Reconstruct(dimensions=(keep,))
        walk = reconstruct(model, photo("red"), *given, how=how, options=quick())
        with pytest.raises(OptionError, match=match):
            finish(walk)

    refuse("unclip embed", 4)
    refuse("33: there are 32", 33, file)


def test_an_autoregressive_prior_lends_its_components(
    model, photo, quick, pixels, tiny_model, tmp_path
) -> None:
    """Seven of them are the seven first of the embeddings that its codec was fitted to."""
    prior = build_prior(
        preset("tiny").with_autoregressive().prior(load_stage(tiny_model / "clip").config)
    )
    text = model.encode_text([f"picture {number}" for number in range(64)])
    sample = embeddings(64)
    batch = Batch(keys=tuple("x" * 64), text=text, image_embedding=sample)
    prior.codec.fit([batch])
    folder = tmp_path / "writing"
    shutil.copytree(tiny_model, folder)
    shutil.rmtree(folder / "prior")
    save_stage(prior, folder / "prior")
    writing = load_pipeline(folder, model.runtime)
    file = tmp_path / "sample.npy"
    np.save(file, sample.numpy())

    def draw(*given, dimensions: tuple[int, ...] = (2, 7)):
        how = Reconstruct(dimensions=dimensions)
        walk = reconstruct(writing, photo("red"), *given, how=how, options=quick())
        return finish(walk)

    lent, found = draw(), draw(file)
    assert [picture.label for picture in lent] == ["2 of 32", "7 of 32"]
    for own, other in zip(lent, found, strict=True):
        assert np.abs(pixels(own) - pixels(other)).max() <= 1
    assert np.abs(pixels(lent[0]) - pixels(lent[1])).max() > 1
    assert len(lent[0].items) == 1
    with pytest.raises(OptionError, match="9: the model's prior keeps 8"):
        draw(dimensions=(9,))


def test_the_walk_is_249_of_250_unguided_steps(model) -> None:
    walk = there_and_back(model, GenerateOptions()).decoder
    assert (walk.sampler, walk.steps, walk.skip, walk.guidance) == ("ddim", 250, 1, 1.0)
    chosen = GenerateOptions.parse({"decoder": {"guidance": 3.0}}, source="test")
    walk = there_and_back(model, chosen).decoder
    assert (walk.steps, walk.guidance) == (250, 3.0)


def test_iteration_brings_the_picture_back(model, photo, quick, monkeypatch) -> None:
    """With the exact denoiser of Gaussian pixels in the network's place."""
    with model.decoder.use() as decoder:
        process = decoder.process

    def gaussian(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = process.lookup("alpha", t, x), process.lookup("sigma", t, x)
        noise = s / (0.25 * a**2 + s**2) * x
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)

    monkeypatch.setattr(Decoder, "_denoiser", lambda *_: gaussian)
    options = quick(decoder={"steps": 20})
    labels = [
        finish(reconstruct(model, photo("red"), how=how, options=options))[0].label
        for how in (Reconstruct(), Reconstruct(exact=True))
    ]
    plain, exact = (float(label.removesuffix(" dB")) for label in labels)
    assert exact > plain + 20
    assert exact > 45


def test_the_same_picture_has_the_same_latent(model, photo, quick) -> None:
    picture = read_input(photo("red"))
    options = there_and_back(model, quick())
    z = embed_picture(model, picture, "crop")
    one, two = (
        finish(invert(model, picture, z, options, fit="crop", exact=False)) for _ in range(2)
    )
    assert torch.equal(one, two)


def test_psnr_of_known_errors() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert psnr(flat + 0.2, flat) == pytest.approx(20)
    assert psnr(flat + 0.02, flat) == pytest.approx(40, abs=1e-3)
    assert psnr(flat, flat) == float("inf")
    white = torch.ones(1, 3, 8, 8)
    assert psnr(1.5 * white, white) == float("inf"), "a file cannot tell them apart"


def test_padding_keeps_the_whole_picture(model, quick) -> None:
    wide = Image.new("RGB", (120, 40), "red")
    z = [embed_picture(model, read_input(wide), fit) for fit in ("crop", "pad")]
    assert not torch.equal(*z)
