import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unclip.errors import CheckpointError, ImageError, OptionError
from unclip.images import to_tensor
from unclip.manipulation.embeddings import Embeddings, decode, embed, read_embeddings
from unclip.manipulation.inputs import read_input
from unclip.manipulation.latents import square
from unclip.manipulation.options import Decode, Vary
from unclip.manipulation.variations import vary
from unclip.randomness import Randomness
from unclip.types import finish


def test_rows_are_clips_and_the_priors(model, photo, quick) -> None:
    red = read_input(photo("red"))
    found = finish(embed(model, [red, "a rocket", red], options=quick()))
    expected = model.encode_image(to_tensor(square(red.image, "crop"))[None])
    torch.testing.assert_close(found.values[[0, 2]], expected.expand(2, -1), rtol=0, atol=1e-5)
    text = model.encode_text(["a rocket"])
    complete = model.complete(quick())
    drawn = finish(model.embed(text, complete, Randomness([0])))
    torch.testing.assert_close(found.values[1:2], drawn, rtol=0, atol=1e-5)
    assert found.names == ("red.png", "a rocket", "red.png")


def test_text_space_is_clips(model, photo, quick) -> None:
    found = finish(embed(model, ["a rocket", read_input(photo("red"))], space="text"))
    torch.testing.assert_close(found.values[:1], model.encode_text(["a rocket"]).embedding)
    assert len(found.values) == 2


@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_files_hold_what_was_embedded(ending: str, model, tmp_path: Path) -> None:
    values = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    path = tmp_path / f"rows.{ending}"
    Embeddings(values, ("a", "b", "c")).save(path)
    assert torch.equal(read_embeddings(read_input(path), model), values)
    if ending == "safetensors":
        with safe_open(path, framework="pt") as file:
            assert json.loads(file.metadata()["names"]) == ["a", "b", "c"]
    with pytest.raises(ImageError, match="exists already"):
        Embeddings(values, ("a", "b", "c")).save(path)


def test_pictures_from_embeddings_are_variations(model, photo, quick, pixels, tmp_path) -> None:
    path = tmp_path / "red.npy"
    embedding = finish(embed(model, [read_input(photo("red"))], options=quick()))
    np.save(path, embedding.values[0].numpy())
    (drawn,) = finish(decode(model, path, options=quick()))
    (varied,) = finish(vary(model, photo("red"), how=Vary(), options=quick()))
    assert np.abs(pixels(drawn) - pixels(varied)).max() <= 1
    assert drawn.label == "row 0, seed 0"


def test_rows_can_be_chosen(model, quick, tmp_path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({"whatever": torch.randn(5, 32).half()}, path)
    made = finish(decode(model, path, how=Decode(rows=(4, 0)), options=quick(images=2)))
    labels = [f"row {row}, seed {seed}" for row in (4, 0) for seed in (0, 1)]
    assert [picture.label for picture in made] == labels
    with pytest.raises(OptionError, match=r"row 5: many\.safetensors has rows 0 to 4"):
        finish(decode(model, path, how=Decode(rows=(5,)), options=quick()))


def test_files_that_hold_no_embeddings(model, tmp_path) -> None:
    def refuse(name: str, content: bytes | np.ndarray, match: str, error=ImageError) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            with path.open("wb") as file:
                np.save(file, content)
        with pytest.raises(error, match=match):
            read_embeddings(read_input(path), model)

    refuse("text.npy", b"hello", "text.npy holds no embeddings")
    refuse("objects.npy", np.array([{}], dtype=object), "objects.npy holds no embeddings")
    refuse("cube.npy", np.zeros((2, 2, 2)), r"cube.npy: an array \[n, d\] is needed")
    refuse("empty.npy", np.zeros((0, 32)), "is needed")
    refuse("nan.npy", np.full((1, 32), np.nan), "NaN")
    refuse("wide.npy", np.zeros((1, 33)), "size 33, tiny decodes size 32", CheckpointError)
    save_file({"a": torch.zeros(1, 32), "b": torch.zeros(1, 32)}, tmp_path / "two")
    with pytest.raises(ImageError, match="it has a, b"):
        read_embeddings(read_input(tmp_path / "two"), model)
