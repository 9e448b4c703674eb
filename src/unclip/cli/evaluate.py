"""``unclip evaluate``: how good a model is on captioned images, as a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unclip.cli.assignments import assignments_of
from unclip.cli.progress import found, watch
from unclip.errors import OptionError

if TYPE_CHECKING:
    from unclip.evaluation.features import Features
    from unclip.evaluation.report import Report


def evaluate(
    model: str,
    data: str,
    /,
    *,
    evaluator: Path | None = None,
    inception: Annotated[Path | None, Parameter(show_default=False)] = None,
    count: Annotated[int, Parameter(alias="-n")] = 1000,
    output: Annotated[Path, Parameter(alias="-o")] = Path("evaluation"),
    size: int | None = None,
    batch: int = 16,
    seed: int = 0,
    assignments: Annotated[list[str] | None, Parameter(name="--set")] = None,
    caption_column: str | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> None:
    """Measure a model on captioned images: a table here, OUTPUT/report.json and report.html.

    For every caption a picture is drawn and compared with the caption's own image. Pictures are
    kept as they are drawn: the same command again goes on where it stopped.

    For example:

        unclip evaluate emoji photos --evaluator other-clip -n 500
        unclip evaluate mine photos --evaluator other-clip --set decoder.guidance=2 -o guided

    Args:
        model: A shipped model's name, or a model folder.
        data: Captioned images the model was not trained on, in any layout `unclip train` takes.
        evaluator: A folder with a CLIP that is not the model's own.
        inception: Also judge by Inception-v3 with this file of torch-fidelity's weights.
        count: Images, real and drawn each; figures of other counts are not comparable.
        output: Folder of the report and its pictures.
        size: Pixels a side, such as 64, 256 or 1024; the largest if unset.
        batch: Images computed together.
        seed: Of the choice of images, and of all pictures.
        assignments: Change a sampling option, such as decoder.guidance=3; repeatable.
        caption_column: Name of the captions' column in metadata files.
        device: auto, cpu, cuda or mps.
        precision: auto, bf16 or fp32.
    """
    from unclip.data.open_data import open_data
    from unclip.evaluation.evaluate import Judges, choose_samples
    from unclip.evaluation.evaluate import evaluate as run
    from unclip.evaluation.features import InceptionFeatures, load_evaluator
    from unclip.evaluation.report import require_matplotlib
    from unclip.loading import load
    from unclip.manipulation.sweeps import assigned
    from unclip.options import GenerateOptions
    from unclip.runtime import choose_runtime

    if evaluator is None and inception is None:
        raise OptionError("name who judges: --evaluator CLIP_FOLDER, or --inception WEIGHTS_FILE")
    if count < 2:
        raise OptionError(f"--count {count}: two images at least")
    require_matplotlib()
    pipeline = load(found(model), choose_runtime(device, precision))
    asked = {"batch": str(batch), "seed": str(seed)} | ({"size": str(size)} if size else {})
    asked |= _changes(assignments)
    options = pipeline.complete(GenerateOptions.parse(assigned({}, asked), source="--set"))
    source = open_data(data, caption_column=caption_column)
    spaces: list[Features] = [] if inception is None else [InceptionFeatures(inception)]
    judge = None if evaluator is None else load_evaluator(evaluator, pipeline)
    samples, skipped = choose_samples(source, count, seed)
    report: Report = watch(run(pipeline, samples, Judges(judge, spaces), options, output, seed))
    report.facts |= {
        "model": pipeline.name,
        "fingerprint": pipeline.fingerprint,
        "data": data,
        "evaluator": None if evaluator is None else str(evaluator),
        "images": len(samples),
        "samples passed over": skipped,
        "real images": f"shorter side to {options.size or pipeline.sizes[-1]} px, middle square",
        "options": options.model_dump(mode="json"),
        "seed": seed,
    }
    report.write(output)
    _show(report)
    print(output / "report.html")


def _changes(assignments: list[str] | None) -> dict[str, str]:
    changes = assignments_of(assignments, "decoder.guidance=3")
    for name in ("images", "batch", "seed", "size"):
        if name in changes:
            raise OptionError(f"--set {name}: {name} is an option of its own here")
    return changes


def _show(report: "Report") -> None:
    from rich.console import Console

    from unclip.cli.tables import rows_table

    Console(highlight=False).print(rows_table(report.rows))
