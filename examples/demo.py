"""Draw the pictures of the README with the shipped model: first seeds, not picked."""

import argparse
import time
from pathlib import Path

import unclip
from unclip.images import contact_sheet, save_png

PROMPTS = """
a red apple
a smiling cat
a blue dragon head icon on a yellow background
a rocket
two hearts
a snowman, flat cartoon style
an octopus, 3d render
a pizza to the left of a guitar
a green tree icon on a white background
a crying face
a castle
a penguin, shaded sticker style
빨간 사과
웃는 고양이
a crown above a skull
an orange fish icon on a black background
a rose
an owl, line art
a bicycle
a birthday cake
a white ghost icon on a purple background
a robot
a lion, glossy
a hot air balloon
""".strip().splitlines()


def main() -> None:
    """Write one PNG per prompt, and a sheet of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    model = unclip.load(arguments.model)
    options = unclip.GenerateOptions(size=arguments.size, batch=8)
    drawn = model.generate(arguments.prompts, options)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number, generated in enumerate(drawn, start=1):
        generated.save(arguments.output / f"{stamp}-{number:02d}.png")
    sheet = contact_sheet([g.image for g in drawn], 6, [g.prompt for g in drawn])
    save_png(sheet, arguments.output / f"{stamp}-sheet.png", {})
    seconds = time.monotonic() - started
    print(f"{len(drawn)} images of {arguments.size} px in {seconds:.1f} s: {arguments.output}/")
    print(f"all on one sheet: {arguments.output}/{stamp}-sheet.png")


if __name__ == "__main__":
    main()
