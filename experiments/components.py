"""Figure 7: pictures from the first principal components of z_i alone, each from one noise.

The paper's coarse things come first: a few components tell what kind of thing it is, all of them
which. What is kept is judged by an evaluator that finds the source among all sources.
"""

import numpy as np

from codes import decode, eight_bit, embed
from measures import curve, percent, see
from study import Numbers, Setting, Study, main
from unclip.evaluation.drawing import side_by_side
from unclip.evaluation.retrieval import retrieved
from unclip.evaluation.statistics import mean, share
from unclip.images import contact_sheet
from unclip.manipulation.reconstruction import keep_components
from unclip.prior.pca import lost, principal_components

DIMENSIONS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Of z_i, as many as it has; all of them come last."""
SCENES = range(4096)
"""Training scenes whose embeddings the components are found in."""
AT_ONCE = 64
SHOWN = 6


def measure(setting: Setting) -> Numbers:
    images = [question.image for question in setting.questions("B")]
    z, sources = embed(setting, images), see(setting, np.stack(images))
    parts = (SCENES[i : i + AT_ONCE] for i in range(0, len(SCENES), AT_ONCE))
    found = principal_components(
        embed(setting, list(setting.scenes.batch(part).images)) for part in parts
    )
    size = z.shape[1]
    kept = [keep for keep in DIMENSIONS if keep < size] + [size]
    own = setting.model.defaults.decoder
    rows, points = [images[:SHOWN]], []

    def drawn(keep: int, count: int) -> np.ndarray:
        return eight_bit(decode(setting, keep_components(found, z[:count], keep), own))

    setting.expect(len(kept))
    for keep in kept:

        def compute(keep=keep) -> Numbers:
            seen = see(setting, drawn(keep, len(z)))
            return {
                "found": share(retrieved(seen, sources)).as_json(),
                "cosine to the source": mean((seen * sources).sum(1)).as_json(),
            }

        point = setting.point(f"{keep} components", compute)
        points.append({"components": keep, "lost": lost(found.spectrum, keep), **point})
        rows.append(drawn(keep, SHOWN))
    setting.picture("components", contact_sheet(side_by_side(rows, SHOWN), 1))
    return {"curve": points, "of": size, "scenes": len(SCENES), "among": len(images)}


def plot(numbers: Numbers, figure) -> None:
    points = numbers["curve"]
    xs = [point["components"] for point in points]
    for axes, name in zip(figure.subplots(1, 2), ("found", "cosine to the source"), strict=True):
        curve(axes, xs, points, name)
        axes.set(xscale="log", xlabel=f"components of {numbers['of']}", ylabel=name)
        axes.set_xticks(xs, [str(count) for count in xs], fontsize=7)
        axes.set_xticks([], minor=True)


def ours(numbers: Numbers) -> dict[str, str]:
    among = numbers["among"]
    words = [f"{point['components']}: {percent(point['found'])}" for point in numbers["curve"]]
    return {"Fig. 7": f"source found among {among}, by components kept: {', '.join(words)}"}


STUDY = Study("components", "Fig. 7", "What do the first components hold?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
