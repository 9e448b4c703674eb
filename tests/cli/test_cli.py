"""Every command through `unclip.cli.run`, as a user meets it."""

import contextlib
import io
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.checkpoint import load_stage
from unclip.cli import run
from unclip.data.loader import Loader
from unclip.images import read_recipe
from unclip.training import session
from unclip.training.log import read_log

TINY = ["--preset", "tiny", "--set", "training.steps=2", "--set", "training.batch=8"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model folder that the commands themselves trained, and what they printed."""
    model = tmp_path_factory.mktemp("models") / "trained"
    printed = []
    for stage in ("clip", "prior", "decoder", "upsampler"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert run(["train", stage, str(photos), "-o", str(model), *TINY]) == 0
        printed.append(out.getvalue())
    return model, printed


@pytest.fixture
def generate(tiny_model, tmp_path, monkeypatch, capsys):
    """Run ``unclip generate`` with the tiny model in an empty folder; what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        size = [] if {"--size", "--like"} & set(arguments) else ["--size", "64"]
        code = run(["generate", *arguments, "--model", str(tiny_model), *size])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert captured.err == "", "no progress where there is no terminal"
        return captured.out

    return call


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# --- train -----------------------------------------------------------------------------------


def test_the_commands_train_a_model_that_draws(
    trained: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, printed = trained
    assert printed == [
        f"{stage}: done after 2 steps, 16 images\n"
        for stage in ("clip", "prior", "decoder", "upsampler")
    ]
    folders = {path.name for path in model.iterdir()}
    assert folders == {"clip", "prior", "decoder", "upsampler-256", "training", "unclip.json"}
    file = tmp_path / "ball.png"
    assert run(["generate", "a red ball", "-m", str(model), "-o", str(file)]) == 0
    assert pixels(file).shape == (256, 256, 3)
    assert run(["info", str(model)]) == 0
    assert "draws        64 px, 256 px" in capsys.readouterr().out


def test_the_same_command_resumes(photos: Path, tmp_path: Path) -> None:
    command = ["train", "clip", str(photos), "-o", str(tmp_path / "whole"), *TINY]
    command += ["--set", "training.steps=3", "--set", "training.log_every=1"]
    assert run(command) == 0
    command[command.index("-o") + 1] = str(tmp_path / "parts")
    assert run([*command, "--max-steps", "1"]) == 0
    assert run(command) == 0
    whole, parts = (tmp_path / name / "clip" for name in ("whole", "parts"))
    for file in ("config.json", "weights.safetensors", "tokenizer.json"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    log = read_log(tmp_path / "parts" / "training" / "clip" / "log.jsonl")
    assert [line["step"] for line in log] == [1, 2, 3]


def test_fine_tuning_starts_from_given_weights(
    trained: tuple[Path, list[str]], photos: Path, tmp_path: Path
) -> None:
    model, _ = trained
    tuned = tmp_path / "tuned"
    command = ["train", "decoder", str(photos), "-o", str(tuned), "--clip", str(model / "clip")]
    command += ["--from", str(model / "decoder"), *TINY, "--set", "training.lr=1e-12"]
    assert run(command) == 0
    before, after = (load_stage(folder / "decoder").state_dict() for folder in (model, tuned))
    assert all((before[key] - after[key]).abs().max() < 1e-6 for key in before)


def test_what_the_prior_needs_is_measured(
    trained: tuple[Path, list[str]],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statistics of z_i before training; the analytic variance after it, on later batches."""
    model = tmp_path / "model"
    shutil.copytree(trained[0], model)
    shutil.rmtree(model / "prior")
    shutil.rmtree(model / "training")
    starts, batches = [], Loader.batches
    monkeypatch.setattr(session, "MEASURED_BATCHES", 2)
    monkeypatch.setattr(
        Loader, "batches", lambda self, start=0: starts.append(start) or batches(self, start)
    )
    changes = ["--set", "scaling=standardised", "--set", "diffusion.variance=analytic"]
    assert run(["train", "prior", str(photos), "-o", str(model), *TINY, *changes]) == 0
    assert starts == [0, 0, 2], "statistics, training, and what comes after its last batch"
    prior = load_stage(model / "prior")
    assert prior.space.measured
    assert prior.posterior.measured
    assert 0 < prior.space.std.mean() < 1
    file = tmp_path / "ball.png"
    ask = ["generate", "a ball", "-m", str(model), "-o", str(file), "--size", "64"]
    assert run([*ask, "--prior.sampler", "ancestral"]) == 0


# --- generate --------------------------------------------------------------------------------


def test_one_image_into_one_file(generate) -> None:
    out = generate("a red apple", "-o", "deep/apple.png", "--size", "256")
    assert out.startswith("deep/apple.png  score ")
    assert out.endswith("  a red apple\n")
    assert pixels("deep/apple.png").shape == (256, 256, 3)
    assert read_recipe("deep/apple.png")["prompt"] == "a red apple"


def test_many_images_into_a_folder(generate) -> None:
    out = generate("a cat!", "Zwei Hunde", "-n", "2", "--seed", "7", "-o", "out")
    names = {f"out/{words}-{seed}.png" for words in ("a-cat", "zwei-hunde") for seed in (7, 8)}
    assert {line.split()[0] for line in out.splitlines()} == names
    assert {str(path) for path in Path("out").iterdir()} == names


def test_nothing_is_overwritten(generate) -> None:
    first = generate("a cat").split()[0]
    content = Path(first).read_bytes()
    second = generate("a cat").split()[0]
    assert (first, second) == ("a-cat-0.png", "a-cat-0-2.png")
    assert Path(first).read_bytes() == content


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_running_out_of_memory_is_one_line(error, tiny_model, monkeypatch, capsys) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("unclip.pipeline.UnCLIP.stream", fail)
    assert run(["generate", "a cat", "-m", str(tiny_model)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unclip: out of memory; draw less at once (--batch 1")
    error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        run(["generate", "a cat", "-m", str(tiny_model)])


@pytest.mark.parametrize(
    ("package", "extra"), [("accelerate", "train"), ("matplotlib", "evaluate")]
)
def test_a_package_that_is_not_installed_is_one_line_with_the_way_out(
    package, extra, monkeypatch, capsys
) -> None:
    def command() -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("unclip.cli.app.app", lambda *_, **__: command())
    assert run(["info"]) == 2
    assert f"this needs {package}: pip install 'unclip[{extra}]'\n" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_a_fault_of_ours(monkeypatch) -> None:
    def command() -> None:
        raise ModuleNotFoundError("No module named 'unclip.gone'", name="unclip.gone")

    monkeypatch.setattr("unclip.cli.app.app", lambda *_, **__: command())
    with pytest.raises(ModuleNotFoundError):
        run(["info"])


def test_like_makes_the_same_image_again(generate) -> None:
    generate("a cat", "--seed", "5", "--decoder.guidance", "3.5", "--size", "256", "-o", "a.png")
    generate("--like", "a.png", "-n", "1", "-o", "b.png")
    assert (pixels("a.png") == pixels("b.png")).all()
    assert read_recipe("a.png") == read_recipe("b.png")


@pytest.mark.filterwarnings("default")
def test_like_says_what_may_change_the_last_bits(generate, tiny_model, capsys) -> None:
    generate("a cat", "-n", "2", "-o", "two")
    like = ["--like", "two/a-cat-1.png", "-o", "again.png"]
    assert run(["generate", *like, "-m", str(tiny_model)]) == 0
    assert "computed with batch 2, now 1: expect small differences" in capsys.readouterr().err


def test_like_gives_way_to_what_is_said_anew(generate) -> None:
    generate("a cat", "--seed", "5", "--decoder.guidance", "3.5", "-o", "a.png")
    generate("--like", "a.png", "--seed", "6", "-o", "b.png")
    generate("two dogs", "--like", "a.png", "--decoder.steps", "3", "-o", "c.png")
    first, other, third = (read_recipe(name) for name in ("a.png", "b.png", "c.png"))
    assert other["options"] == {**first["options"], "seed": 6}
    assert third["prompt"] == "two dogs"
    assert third["options"]["seed"] == 5
    assert third["options"]["decoder"] == {**first["options"]["decoder"], "steps": 3}


def test_prompts_from_a_file_and_from_the_standard_input(generate, monkeypatch) -> None:
    Path("list.txt").write_text("a cat\n\n  two dogs \n", encoding="utf-8-sig")
    out = generate("first", "--prompts", "list.txt")
    prompts = [line.split("  ")[-1] for line in out.splitlines()]
    assert prompts == ["first", "a cat", "two dogs"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("빨간 사과\n".encode()), "cp1252"))
    assert generate("--prompts", "-").split()[0] == "빨간-사과-0.png"


def test_json_is_one_object_a_line(generate) -> None:
    out = generate("a cat", "-n", "3", "--json", "--sheet", "all.png", "--batch", "2")
    *images, sheet = [json.loads(line) for line in out.splitlines()]
    assert sheet == {"sheet": "all.png"}
    assert [set(image) for image in images] == 3 * [{"path", "prompt", "seed", "score"}]
    assert {image["seed"] for image in images} == {0, 1, 2}
    scores = [image["score"] for image in images]
    assert scores == sorted(scores, reverse=True)
    height, width, _ = pixels("all.png").shape
    assert width > 2 * 64
    assert height > 2 * 64


def test_low_memory_draws_the_same(generate) -> None:
    generate("a cat", "-o", "a.png")
    generate("a cat", "-o", "b.png", "--low-memory")
    generate("a cat", "-o", "c.png", "--no-low-memory")
    assert (pixels("a.png") == pixels("b.png")).all()
    assert (pixels("a.png") == pixels("c.png")).all()


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_line(tiny_model, tmp_path, capsys) -> None:
    long = "a cat " * 20
    file = tmp_path / "cat.png"
    assert run(["generate", long, "-m", str(tiny_model), "-o", str(file), "--size", "64"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("unclip: CLIP's text tower reads 16 tokens and cut ")


# --- info ------------------------------------------------------------------------------------


def test_info(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    for part in ("tiny\n", "random weights", "Apache-2.0", "64 px, 256 px, 1024 px", "guidance 2"):
        assert part in out
    for stage in ("clip", "prior", "decoder", "upsampler-256", "upsampler-1024"):
        assert stage in out


def test_info_as_json(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(tiny_model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["card"]["name"] == "tiny"
    assert facts["sizes"] == [64, 256, 1024]
    assert len(facts["fingerprint"]) == 12
    assert facts["defaults"]["decoder"]["steps"] == 4
    weights = tiny_model / "decoder" / "weights.safetensors"
    assert facts["stages"]["decoder"]["bytes"] == weights.stat().st_size
    assert facts["stages"]["decoder"]["parameters"] * 4 < weights.stat().st_size
    assert facts["stages"]["decoder"]["config"]["size"] == 64


# --- errors ----------------------------------------------------------------------------------


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that fails says: one line, and code 2."""
    capsys.readouterr()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("unclip: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


@pytest.fixture
def scene(tiny_model, photos, trained, tmp_path, monkeypatch) -> dict[str, str]:
    """Folders and files to go wrong with, by the names the commands below use."""
    monkeypatch.chdir(tmp_path)
    Path("taken.png").touch()
    Path("notes.txt").touch()
    Path("empty").mkdir()
    shutil.copytree(tiny_model, "damaged")
    Path("damaged/unclip.json").write_text("{")
    shutil.copytree(tiny_model, "partial")
    Path("partial/prior/weights.safetensors").unlink()
    Image.new("RGB", (8, 8)).save("plain.png")
    return {"TINY": str(tiny_model), "PHOTOS": str(photos), "TRAINED": str(trained[0])}


MISTAKES = [
    ("genrate cat", "Did you mean"),
    ("generate cat --decoder.stpes 3", "--decoder.stpes. Did you mean --decoder.steps"),
    ("generate cat --decoder.steps 0", "decoder.steps: "),
    ("generate cat --images many", "images: "),
    ("generate cat --upsampler.256.stpes 3", "upsampler.256.stpes: no such field"),
    ("generate cat --prior.sampler euler", "prior.sampler: "),
    ("generate cat -m TINY --size 100", "size 100 cannot be drawn"),
    ("generate cat -m TINY --upsampler.512.steps 3", "upsampler.512"),
    ("generate cat -m TINY --device tpu", "device 'tpu' is not known"),
    ("generate cat -m TINY --precision fp64", "precision 'fp64' is not known"),
    ("generate cat -m nowhere", "there is no model 'nowhere'"),
    ("generate cat -m empty", "empty is no model folder"),
    ("generate cat -m damaged", "damaged/unclip.json is damaged"),
    ("generate cat -m partial", "prior/weights.safetensors does not exist"),
    ("info nowhere", "there is no model 'nowhere'"),
    ("info partial", "prior/weights.safetensors does not exist"),
    ("generate -m TINY", "no prompt given"),
    ("generate EMPTY -m TINY", "the prompt is empty"),
    ("generate cat EMPTY -m TINY --batch 1", "prompt 2 is empty"),
    ("generate --prompts notes.txt -m TINY", "notes.txt holds no prompt"),
    ("generate --prompts missing.txt -m TINY", "missing.txt cannot be read"),
    ("generate cat -o taken.png -m TINY", "taken.png exists and is never overwritten"),
    ("generate cat --sheet taken.png -m TINY", "taken.png exists and is never overwritten"),
    ("generate cat -o a.png --sheet a.png -m TINY", "--output and --sheet are both a.png"),
    ("generate cat -n 2 -o a.png -m TINY", "is one file, but 2 images"),
    ("generate cat -o cat.jpg -m TINY", "images are PNG"),
    ("generate cat -o notes.txt -m TINY", "images are PNG"),
    ("generate cat -o notes.txt/cat.png -m TINY", "notes.txt cannot be made"),
    ("generate --like plain.png -m TINY", "plain.png: no recipe inside"),
    ("generate --like missing.png -m TINY", "missing.png: no such file"),
    ("train clip PHOTOS --preset huge", "no preset 'huge'; known: tiny, emoji"),
    ("train clip PHOTOS --set loss", "--set loss: write NAME=VALUE"),
    ("train clip PHOTOS --preset tiny --set los=a", "there is no 'los'"),
    ("train clip PHOTOS --preset tiny --set training.stpes=1", "there is no 'stpes'"),
    ("train clip PHOTOS --preset tiny --set training.steps=0", "steps: "),
    ("train clip missing --preset tiny", "missing: nothing is there"),
    ("train clip empty --preset tiny", "empty: no dataset"),
    ("train clip PHOTOS --preset tiny -o notes.txt", "notes.txt"),
    ("train painter PHOTOS", "painter"),
    ("train prior PHOTOS --preset tiny", "model has no CLIP for a prior"),
    ("train prior PHOTOS --preset tiny --clip TINY/decoder", "holds a decoder, not a clip"),
    ("train decoder PHOTOS --clip TINY/clip --from TINY/prior", "holds a prior, not a decoder"),
    ("train upsampler PHOTOS --from TINY/upsampler-256 --set low=3", "only training.… can be"),
    (
        "train upsampler PHOTOS --preset tiny --to 512",
        "--to 512: this preset has upsamplers to 256",
    ),
    ("train upsampler PHOTOS --preset tiny --to 1024", "image too small"),
    ("train clip PHOTOS --preset tiny --tracker chalk", "tracker 'chalk' is not installed"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[name for name, _ in MISTAKES])
def test_mistakes_are_one_line(
    command: str, message: str, scene: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = []
    for word in command.split():
        for name, path in scene.items():
            word = word.replace(name, path)
        arguments.append("" if word == "EMPTY" else word)
    assert message in complaint(arguments, capsys)


def test_like_needs_the_same_model(
    scene: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "cat", "-m", scene["TINY"], "-o", "a.png", "--size", "64"]) == 0
    message = complaint(["generate", "--like", "a.png", "-m", scene["TRAINED"]], capsys)
    assert "a.png was drawn by model tiny" in message


def test_a_clip_of_another_size_is_refused(
    scene: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "clip", scene["PHOTOS"], "-o", "other", *TINY, "--set", "embedding=48"]
    assert run(command) == 0
    tune = ["train", "decoder", scene["PHOTOS"], "-o", "other", *TINY]
    message = complaint([*tune, "--from", f"{scene['TINY']}/decoder"], capsys)
    assert "takes embeddings of size 32, the CLIP makes 48" in message


@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_full_disk_is_one_line(
    command: str, scene: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "generate": ["generate", "cat", "-m", scene["TINY"], "-o", "cat.png", "--size", "256"],
        "train": ["train", "clip", scene["PHOTOS"], "-o", "model", *TINY],
    }[command]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        assert run(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("unclip: ")
    assert "cannot be written" in message
    assert not Path("cat.png").exists()
    assert not Path("model/clip").exists()


def test_interrupting_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unclip.cli.app.app", interrupted)
    assert run(["info"]) == 130
    assert capsys.readouterr().err == ""
