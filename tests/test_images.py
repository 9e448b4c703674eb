import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unclip import images
from unclip.errors import ImageError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def only_colour(image: Image.Image) -> tuple[int, ...]:
    assert image.mode == "RGB"
    (entry,) = image.getcolors()
    return entry[1]


def near(colour: tuple[int, ...], expected: tuple[int, ...], slack: int = 4) -> bool:
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) <= slack


def bomb(width: int, height: int) -> bytes:
    """A PNG of valid header and checksum that claims to be enormous."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


RED = (200, 30, 40)


def palette() -> Image.Image:
    return Image.new("RGB", (6, 6), RED).quantize(4)


def palette_transparent() -> Image.Image:
    image = Image.new("P", (6, 6), 0)
    image.putpalette([0, 0, 0, *RED])
    image.info["transparency"] = 0
    return image


MODES = {
    "rgb": (Image.new("RGB", (6, 6), RED), "PNG", {}, RED),
    "palette": (palette(), "PNG", {}, RED),
    "palette gif": (palette(), "GIF", {}, RED),
    "transparent palette": (palette_transparent(), "PNG", {}, (255, 255, 255)),
    "half transparent": (Image.new("RGBA", (6, 6), (0, 0, 0, 128)), "PNG", {}, (127, 127, 127)),
    "transparent webp": (Image.new("RGBA", (6, 6), (9, 9, 9, 0)), "WEBP", {}, (255, 255, 255)),
    "grey": (Image.new("L", (6, 6), 77), "PNG", {}, (77,) * 3),
    "grey with alpha": (Image.new("LA", (6, 6), (0, 51)), "PNG", {}, (204,) * 3),
    "one bit": (Image.new("1", (6, 6), 1), "PNG", {}, (255,) * 3),
    "cmyk": (Image.new("CMYK", (6, 6), (0, 255, 255, 0)), "JPEG", {}, (254, 0, 0)),
    "cmyk tiff": (Image.new("CMYK", (6, 6), (0, 0, 0, 255)), "TIFF", {}, (0, 0, 0)),
    "ycbcr": (Image.new("YCbCr", (6, 6), (128, 128, 128)), "JPEG", {}, (128,) * 3),
    "grey 16 bit": (
        Image.fromarray(np.full((6, 6), 257 * 90, np.uint16)), "PNG", {}, (90,) * 3,
    ),
    "grey 16 bit transparent": (
        Image.fromarray(np.full((6, 6), 1000, np.uint16)),
        "PNG", {"transparency": 1000}, (255,) * 3,
    ),
    "int 32": (Image.fromarray(np.full((6, 6), 65535, np.int32)), "TIFF", {}, (255,) * 3),
    "float": (Image.fromarray(np.full((6, 6), 0.5, np.float32)), "TIFF", {}, (128,) * 3),
    "avif": (Image.new("RGB", (6, 6), RED), "AVIF", {"quality": 100}, RED),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb(name: str, tmp_path: Path) -> None:
    image, kind, options, expected = MODES[name]
    data = encoded(image, kind, **options)
    assert near(only_colour(images.decode(data)), expected)
    (tmp_path / "image").write_bytes(data)
    assert near(only_colour(images.decode(tmp_path / "image")), expected)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    upright = images.decode(encoded(image, "PNG", exif=exif))
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == (255, 255, 255)
    assert upright.getpixel((4, 13)) == (0, 0, 0)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert near(only_colour(images.decode(data)), (255, 0, 0), 8), kind


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (11_000, 9_000), (2**31 - 1, 1)])
def test_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"large|more than"):
        images.decode(bomb(width, height))
    assert before == Image.MAX_IMAGE_PIXELS


def test_own_limit() -> None:
    data = encoded(Image.new("RGB", (20, 20)))
    assert images.decode(data, max_pixels=400).size == (20, 20)
    with pytest.raises(ImageError, match="20 × 20 is more than 399 pixels"):
        images.decode(data, max_pixels=399)


@settings(deadline=None)
@given(st.data())
def test_damaged_files_raise_nothing_but_image_errors(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
    whole = bytearray(encoded(Image.linear_gradient("L").resize((24, 24)).convert("RGB"), kind))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        image = images.decode(bytes(whole[:cut]), max_pixels=10_000)
    except ImageError:
        return
    assert image.mode == "RGB"


def test_errors_name_the_file(tmp_path: Path) -> None:
    broken = tmp_path / "notes.jpg"
    broken.write_text("not an image at all")
    with pytest.raises(ImageError, match=r"notes\.jpg: not an image"):
        images.decode(broken)
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        images.decode(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read"):
        images.decode(tmp_path)


def test_postscript_is_not_run() -> None:
    with pytest.raises(ImageError, match="not an image of a known format"):
        images.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_tensor_round_trip_is_exact() -> None:
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    tensor = images.to_tensor(pixels)
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert np.array_equal(np.array(images.to_pil(tensor)), pixels)
    assert torch.equal(images.to_tensor(Image.fromarray(pixels)), tensor)
    assert np.array_equal(
        np.array(images.to_pil(tensor * 3)), np.array(images.to_pil((tensor * 3).clamp(-1, 1)))
    )


def test_nan_is_not_painted_black() -> None:
    with pytest.raises(ImageError, match="NaN"):
        images.to_pil(torch.full((3, 4, 4), torch.nan))


@pytest.mark.parametrize("size", [(37, 90), (90, 37), (1000, 3), (64, 64)])
def test_resize_keeps_proportions(size: tuple[int, int]) -> None:
    image = images.resize(Image.new("RGB", size), 32)
    assert min(image.size) == 32
    assert abs(max(image.size) - 32 * max(size) / min(size)) <= 0.5
    assert images.centre_crop(image, 32).size == (32, 32)


def test_resize_is_antialiased() -> None:
    checks = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    assert np.abs(np.array(images.resize(checks, 8)).astype(int) - 127).max() <= 3


def test_centre_crop_takes_the_middle() -> None:
    image = Image.new("RGB", (9, 5), "black")
    image.paste("white", (2, 0, 7, 5))
    assert only_colour(images.centre_crop(image, 5)) == (255, 255, 255)


recipes = st.dictionaries(
    st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)
)


@settings(deadline=None, max_examples=25)
@given(recipes)
def test_recipe_round_trip(tmp_path_factory: pytest.TempPathFactory, recipe: dict) -> None:
    path = tmp_path_factory.mktemp("png") / "빨간 사과.png"
    images.save_png(Image.new("RGB", (3, 2), RED), path, recipe)
    assert images.read_recipe(path) == recipe
    assert only_colour(images.decode(path)) == RED
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.save_png(Image.new("RGB", (3, 2), RED), path, {"seed": 1})
    before = path.read_bytes()
    with pytest.raises(ImageError, match=r"a\.png: exists already"):
        images.save_png(Image.new("RGB", (3, 2)), path, {"seed": 2})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_loses_the_race_without_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else takes the name between the check and the rename."""
    path = tmp_path / "a.png"
    path.write_text("theirs")
    monkeypatch.setattr("os.path.lexists", lambda _: False)
    with pytest.raises(ImageError, match="exists already"):
        images.save_png(Image.new("RGB", (3, 2)), path, {})

    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    with pytest.raises(ImageError, match="exists already"):
        images.save_png(Image.new("RGB", (3, 2)), path, {})
    assert path.read_text() == "theirs"
    images.save_png(Image.new("RGB", (3, 2)), tmp_path / "b.png", {"a": 1})
    assert images.read_recipe(tmp_path / "b.png") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """The kernel refuses the write, by a limit on file sizes; nothing is left behind."""
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ImageError, match=r"a\.png: cannot be written: File too large"):
            images.save_png(noise, tmp_path / "a.png", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file or directory"):
        images.save_png(Image.new("RGB", (3, 2)), tmp_path / "no" / "a.png", {})


def test_recipe_errors(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    plain.write_bytes(encoded(Image.new("RGB", (3, 2))))
    with pytest.raises(ImageError, match=r"plain\.png: no recipe"):
        images.read_recipe(plain)
    for text in ("{", "[1]"):
        info = images.PngImagePlugin.PngInfo()
        info.add_itxt("unclip", text)
        plain.write_bytes(encoded(Image.new("RGB", (3, 2)), pnginfo=info))
        with pytest.raises(ImageError, match=r"plain\.png: its recipe is damaged"):
            images.read_recipe(plain)


def test_contact_sheet() -> None:
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    sheet = images.contact_sheet(pictures, 2)
    assert sheet.size == (8 + 2 * 40, 8 + 2 * 40)
    assert sheet.getpixel((24, 24)) == (255, 0, 0)
    assert sheet.getpixel((64, 24)) == (0, 128, 0)
    assert sheet.getpixel((24, 64)) == (0, 0, 255)
    assert sheet.getpixel((64, 64)) == (255, 255, 255)
    captions = ["a red square", "", "a very long caption that cannot possibly fit below 빨간"]
    captioned = images.contact_sheet(pictures, 2, captions)
    assert captioned.width == 8 + 2 * 136, "small pictures grow, so that words fit below"
    pixels = np.array(captioned)
    assert (pixels[8:136, 8:136] == (255, 0, 0)).all()
    assert (pixels[8:136, 144:272] == (0, 128, 0)).all()
    assert pixels[138:160, 8:136].min() < 128, "words below the first"
    assert pixels[138:160, 144:272].min() == 255, "none below the second"
    with pytest.raises(ImageError, match="3 pictures but 1 captions"):
        images.contact_sheet(pictures, 2, ["a"])
    with pytest.raises(ImageError, match="at least one"):
        images.contact_sheet([], 2)
