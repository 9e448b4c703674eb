"""Whole runs of Karlo against diffusers' two pipelines with the same noise: 25+25+7 steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import karlo_ours
import karlo_small
import pytest
import torch
from karlo_ours import apart
from karlo_small import PROMPTS, Recorded
from PIL import Image
from torch import Tensor

from unclip.diffusion.sampling import SamplingOptions
from unclip.errors import CheckpointError
from unclip.images import to_tensor
from unclip.options import GenerateOptions
from unclip.pipeline import Slot, UnCLIP
from unclip.randomness import InjectedNoise
from unclip.types import finish
from unclip.weights import karlo_diffusers

pytestmark = pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")

VARIATIONS = pytest.mark.parametrize("variation", [False, True], ids=["text", "image"])


def pictures() -> list[Image.Image]:
    """Two smooth pictures of the image tower's size."""
    ramp = torch.linspace(0, 255, 32)
    first = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T, 255 - ramp.expand(32, 32)], 2)
    return [Image.fromarray(x.to(torch.uint8).numpy()) for x in (first, first.flip(0) / 2)]


class Case:
    """A pipeline of theirs, what it did with prepared noise, and ours of the same weights."""

    def __init__(self, folder: Path, *, variation: bool, dtype: torch.dtype) -> None:
        self.variation, self.dtype = variation, dtype
        self.theirs = karlo_small.pipeline(variation=variation)
        karlo_small.save(self.theirs, folder, variant="fp16" if variation else None)
        imported = karlo_ours.planned(folder, karlo_diffusers.FAMILY)
        self.stages = {k: stage.to(dtype) for k, stage in karlo_ours.stages(imported).items()}
        self._store_empty()
        self.theirs.to(dtype)
        self.noises = karlo_small.noises(1, dtype, with_prior=not variation)
        with pytest.MonkeyPatch.context() as patch:
            # x_T are given by name; each scheduler draws for all steps but its last.
            drawn = [noise for stage in self.noises.values() for noise in stage[1:]]
            self.steps = karlo_small.record(patch, drawn)
            self.result = self._run()
        hold = {name: Slot.holding(stage) for name, stage in self.stages.items()}
        self.ours = UnCLIP(
            hold["clip"],
            hold.get("prior"),
            hold["decoder"],
            {32: hold["upsampler-32"]},
            size=16,
            defaults=imported.defaults,
        )
        self.options = GenerateOptions().over(imported.defaults)

    def _store_empty(self) -> None:
        """Encode the empty prompt in this run's type: imports keep it in float32."""
        with torch.no_grad():
            empty = self.stages["clip"].encode_text([""])
        self.stages["decoder"].network.text.unconditional.store(empty)
        if not self.variation:
            self.stages["prior"].network.unconditional.store(empty)

    def _run(self) -> Tensor:
        names = {"prior": "prior_latents", "decoder": "decoder_latents"}
        names |= {"upsampler": "super_res_latents"}
        latents = {names[stage]: noise[0] for stage, noise in self.noises.items()}
        image = {"image": pictures()} if self.variation else {"prompt": PROMPTS}
        with karlo_small.quiet():
            output = self.theirs(**image, **latents, output_type="np")
        return torch.from_numpy(output.images).permute(0, 3, 1, 2)

    def of(self, stage: str) -> Sequence[Recorded]:
        counts = {name: len(noise) for name, noise in self.noises.items()}
        start = sum(counts[name] for name in list(counts)[: list(counts).index(stage)])
        return self.steps[start : start + counts[stage]]

    def text(self) -> Any:
        return None if self.variation else self.ours.encode_text(PROMPTS)

    def embedding(self) -> Tensor:
        """z_i as theirs drew or encoded it."""
        if not self.variation:
            return self.theirs.prior.post_process_latents(self.of("prior")[-1].result).detach()
        with torch.no_grad():
            return self.theirs._encode_image(pictures(), "cpu", 1)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variation, dtype = request.param
    return Case(tmp_path_factory.mktemp("karlo"), variation=variation, dtype=dtype)


def single(options: SamplingOptions, step: Recorded) -> SamplingOptions:
    """Options under which a sampler's first step is this one."""
    changes = {"spacing": step.spacing, "steps": len(step.spacing)}
    return options.model_copy(update=changes)


def runs(dtype: torch.dtype) -> Any:
    return pytest.mark.parametrize(
        "case", [(False, dtype), (True, dtype)], ids=["text", "image"], indirect=True
    )


@runs(torch.float32)
def test_every_step_from_their_x_t(case: Case, record_property) -> None:
    text, options = case.text(), case.options
    worst = {}
    if not case.variation:
        worst["prior"] = [
            apart(
                next(
                    case.stages["prior"].sample(
                        text, single(options.prior, step), InjectedNoise(step.injected), 1
                    )
                ).sample,
                step.result,
            )
            for step in case.of("prior")
        ]
    z = case.embedding()
    worst["decoder"] = [
        apart(
            next(
                case.stages["decoder"].sample(
                    z, text, single(options.decoder, step), InjectedNoise(step.injected)
                )
            ).sample,
            step.result,
        )
        for step in case.of("decoder")
    ]
    small = case.of("decoder")[-1].result
    worst["upsampler"] = [
        apart(
            next(
                case.stages["upsampler-32"].sample(
                    small, single(options.upsampler["32"], step), InjectedNoise(step.injected)
                )
            ).sample,
            step.result,
        )
        for step in case.of("upsampler")
    ]
    for stage, errors in worst.items():
        record_property(f"{stage} teacher-forced", max(errors))
        assert max(errors) <= 1e-4, (stage, errors)


@runs(torch.float64)
def test_the_whole_run(case: Case, record_property) -> None:
    noise = InjectedNoise([x for stage in case.noises.values() for x in stage])
    text = case.text()
    if case.variation:
        z = case.ours.encode_image(torch.stack([to_tensor(p) for p in pictures()]).double())
    else:
        z = finish(case.ours.embed(text, case.options, noise))
    assert apart(z, case.embedding()) <= 1e-3
    images = finish(case.ours.decode(z, text, case.options, noise))
    assert images.dtype == torch.float64
    inside = float(((case.result > 0) & (case.result < 1)).double().mean())
    record_property("unsaturated", inside)
    assert inside >= 0.5
    mine = (images / 2 + 0.5).clamp(0, 1)
    difference = float((mine - case.result).abs().max())
    record_property("free-running", difference)
    assert difference <= 1e-3


@runs(torch.float64)
def test_all_prepared_noise_is_used(case: Case) -> None:
    """Theirs draws none in the last step of a stage; a pipeline that does would shift the rest."""
    queue = [x for stage in case.noises.values() for x in stage]
    noise = InjectedNoise(queue)
    if not case.variation:
        finish(case.ours.embed(case.text(), case.options, noise))
    finish(case.ours.decode(case.embedding(), case.text(), case.options, noise))
    with pytest.raises(StopIteration):
        noise.normal(1)


def test_a_model_without_a_prior_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no prior and draws no prompts"):
        UnCLIP(Slot(list), None, Slot(list), {}, size=16).generate("a fox")
