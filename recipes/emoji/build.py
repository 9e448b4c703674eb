"""Build the default dataset: download, name, split, render, pack.

``python recipes/emoji/build.py`` fills ``cache/emoji``; what is already there is not made again.
Drawings are RGBA with premultiplied alpha, so that composing is one multiplication.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
from collections import Counter
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from drawings import Drawing, Table, collect
from numpy.lib.format import open_memmap
from packages import SETS
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table as Grid

SIDES = (64, 58, 52, 46, 40, 34, 30, 26, 22)
"""Sides at which drawings are kept for 64 px scenes; composing never resizes."""
REFERENCE = {
    "noto": 1468, "noto-v1": 1066, "twemoji": 1468, "fluent-emoji": 1448, "fluent-emoji-flat": 1452,
    "fluent-emoji-3d": 1449, "fluent-emoji-high-contrast": 1452, "fxemoji": 576, "emojione": 966,
    "emojione-monotone": 963, "streamline-emojis": 524, "game-icons": 3775,
    "streamline-ultimate-color": 998, "streamline-kameleon-color": 200, "flat-color-icons": 329,
}  # fmt: skip
"""Roughly how many drawings each set should give; the closing table shows them beside ours."""


def render(art: str, picture: bytes, side: int) -> Image.Image | None:
    """Rasterise one drawing at ``side`` pixels, premultiplied, or None if it cannot be drawn."""
    import resvg_py

    if not picture.startswith(b"<svg"):
        image = Image.open(io.BytesIO(picture)).convert("RGBa")
        return image.resize((side, side), Image.Resampling.HAMMING)
    try:
        png = resvg_py.svg_to_bytes(svg_string=picture.decode(), width=side, height=side, dpi=96)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBa")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic inside resvg is not an Exception
        return None


def _small(job: tuple[str, bytes]) -> list[np.ndarray] | None:
    image = render(*job, side=128)
    if image is None:
        return None
    filters = Image.Resampling.HAMMING
    return [np.asarray(image.resize((side, side), filters)) for side in SIDES]


def _webp(job: tuple[str, bytes, int]) -> bytes:
    image = render(*job)
    if image is None:
        return b""
    out = io.BytesIO()
    image.convert("RGBA").save(out, "webp", lossless=True, quality=40, method=3)
    return out.getvalue()


def _workers(processes: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(processes, initializer=os.nice, initargs=(5,))


def digest(table: Table, artwork: list[bytes], *more: object) -> str:
    """What the pixels depend on: an unchanged digest means they need not be made again."""
    state = hashlib.sha256(repr((SIDES, *more)).encode())
    for drawing, picture in zip(table.drawings, artwork, strict=True):
        state.update(f"{drawing.art}/{drawing.icon}".encode() + picture)
    return state.hexdigest()


def pack_small(table: Table, artwork: list[bytes], cache: Path, processes: int) -> None:
    """Write ``rgba/64.npy`` and the smaller sides, without blank and repeated drawings.

    Those rows are removed from the table and the artwork too, so that row ``i`` is image ``i`` of
    every array.
    """
    record = cache / "rgba" / "rows.json"
    made = digest(table, artwork)
    if record.exists() and json.loads(record.read_text())["digest"] == made:
        borders = {int(row): border for row, border in json.loads(record.read_text())["rows"]}
    else:
        borders = _render_small(table, artwork, cache, processes)
        record.write_text(json.dumps({"digest": made, "rows": list(borders.items())}))
    for row, border in borders.items():
        table.drawings[row].border = border
    table.drawings = [table.drawings[row] for row in borders]
    artwork[:] = [artwork[row] for row in borders]


def _render_small(
    table: Table, artwork: list[bytes], cache: Path, processes: int
) -> dict[int, float]:
    """Render and write all sides; return the rows kept, each with how open its border is."""
    seen: set[tuple[str, bytes]] = set()
    borders: dict[int, float] = {}
    kept: list[list[np.ndarray]] = []
    frame = np.ones((64, 64), bool)
    frame[2:-2, 2:-2] = False
    arts = [drawing.art for drawing in table.drawings]
    with _workers(processes) as pool:
        images = pool.imap(_small, zip(arts, artwork, strict=True), chunksize=32)
        for row, image in enumerate(track(images, "64 px", total=len(arts))):
            if image is None or image[0][..., 3].mean() < 5:
                continue
            if table.drawings[row].one_colour and image[0][..., :3].max() > 8:
                continue  # a second colour inside: it could not be recoloured
            mark = (arts[row], image[0].tobytes())
            if mark in seen:
                continue
            seen.add(mark)
            borders[row] = round(float((image[0][..., 3][frame] < 128).mean()), 3)
            kept.append(image)
    (cache / "rgba").mkdir(exist_ok=True)
    for number, side in enumerate(SIDES):
        partial = cache / "rgba" / f"{side}.npy.partial"
        array = open_memmap(partial, "w+", np.uint8, (len(kept), side, side, 4))
        for place, image in enumerate(kept):
            array[place] = image[number]
        array.flush()
        partial.rename(cache / "rgba" / f"{side}.npy")
    return borders


def pack_large(
    table: Table, artwork: list[bytes], cache: Path, side: int, processes: int, sample: int | None
) -> None:
    """Write ``{side}.webp`` (lossless WebP files end to end) and ``{side}.npy`` (their offsets).

    Rows that were not rendered have an empty range. With ``sample``, that many vector drawings
    are taken, spread over all sets.
    """
    rows = table.drawings
    record, made = cache / f"{side}.digest", digest(table, artwork, side, sample)
    if record.exists() and record.read_text() == made:
        return
    chosen = _spread(rows, sample) if sample else set(range(len(rows)))
    jobs = [(rows[i].art, artwork[i], side) for i in sorted(chosen)]
    offsets = np.zeros(len(rows) + 1, np.int64)
    partial = cache / f"{side}.webp.partial"
    with _workers(processes) as pool, partial.open("wb") as out:
        images = pool.imap(_webp, jobs, chunksize=8)
        for row in track(range(len(rows)), f"{side} px"):
            data = next(images) if row in chosen else b""
            out.write(data)
            offsets[row + 1] = offsets[row] + len(data)
    np.save(cache / f"{side}.npy", offsets)
    partial.rename(cache / f"{side}.webp")
    record.write_text(made)


def _spread(rows: list[Drawing], sample: int) -> set[int]:
    sets: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.vector and row.split == "train":
            sets.setdefault(row.art, []).append(number)
    share = max(1, sample // len(sets))
    return {
        i for members in sets.values() for i in members[:: max(1, len(members) // share)][:share]
    }


def report(table: Table, console: Console) -> None:
    """Print how many drawings each set gave, beside how many it should."""
    grid = Grid("set", "licence", "drawings", "expected", "train", "B", "C", "near C")
    counts = Counter((d.art, d.split) for d in table.drawings)
    for art in SETS:
        splits = [counts[art.key, name] for name in ("train", "B", "C", "near C")]
        cells = (sum(splits), REFERENCE[art.key], *splits)
        grid.add_row(art.key, art.licence, *map(str, cells))
    console.print(grid)
    concepts = {d.concept for d in table.drawings}
    held = {language: len(words) for language, words in table.held_words.items()}
    console.print(
        f"{len(table.drawings)} drawings of {len(concepts)} concepts; held-out words {held}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--sizes", default="64,256", help="of 64, 256, 1024 (default 64,256)")
    parser.add_argument("--sample", type=int, default=1500, help="drawings rendered at 1024 px")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    console = Console()
    cache: Path = options.cache
    cache.mkdir(parents=True, exist_ok=True)
    sizes = [int(size) for size in options.sizes.split(",")]
    console.print("reading the packages")
    table, artwork = collect(cache)
    pack_small(table, artwork, cache, options.processes)
    table.write(cache / "drawings.json")
    report(table, console)
    for side in sorted(set(sizes) - {64}):
        sample = options.sample if side > 256 else None
        pack_large(table, artwork, cache, side, options.processes, sample)


if __name__ == "__main__":
    main()
