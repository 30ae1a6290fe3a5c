"""The documentation's command lines: those of the pages in docs/commands run, all others parse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from documented import COMMAND_PAGES, PAGES, ROOT, command_lines

from reidkit.cli import app, main

SMALL = {
    "REIDKIT_ARCH__BACKBONE": "resnet18",
    "REIDKIT_INPUT__SIZE": "[64, 32]",
    "REIDKIT_SCHEDULE__EPOCHS": "1",
    "REIDKIT_SAMPLER__BATCH": "16",
}
CAMERAS = ("cam1", "cam2")


def commands() -> Any:
    return typer.main.get_command(app)


def named(page: Path) -> str:
    return {"gallery-index": "index"}.get(page.stem, page.stem)


def in_process(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0, f"reidkit {' '.join(arguments)}"


@pytest.fixture(scope="module")
def environment(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Settings of a small training, REIDKIT_DATA with a synthetic Market-1501, and a file of random
    weights where torch keeps downloads."""
    import torch
    from torchvision.models import ResNet18_Weights, resnet18

    data = tmp_path_factory.mktemp("documented")
    (data / "Market-1501-v15.09.15").symlink_to(market)
    downloaded = data / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    downloaded.parent.mkdir(parents=True)
    torch.save(resnet18(weights=None).state_dict(), downloaded)
    (data / "resnet18.pth").hardlink_to(downloaded)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REIDKIT_DATA", "TORCH_HOME"):
            patch.setenv(name, str(data))
        for name, value in SMALL.items():
            patch.setenv(name, value)
        yield data


@pytest.fixture(scope="module")
def prepared(environment: Path, market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the examples name, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("prepared")
    images = sorted((market / "bounding_box_test").glob("0*.jpg"))
    for name, chosen in (("photos", images[:6]), ("new-photos", images[6:9])):
        (folder / name).mkdir()
        for number, image in enumerate(chosen, 42):
            shutil.copy(image, folder / name / f"{number:04d}.jpg")
    for index, image in enumerate(images[:16]):
        person = folder / "people" / f"person{index // 4}"
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, person / f"{CAMERAS[index % 2]}_{index}.jpg")
    (folder / "frames").mkdir()
    for image in images[:3]:
        shutil.copy(image, folder / "frames")
    shutil.copy(images[0], folder / "who.jpg")
    shutil.copy(images[1], folder / "other.jpg")
    (folder / "resnet18.pth").hardlink_to(environment / "resnet18.pth")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


PREPARE = """
import shutil
from reidkit.cli import main

def run(line):
    try:
        main(line.split())
    except SystemExit as stopped:
        assert stopped.code == 0, line

run("prepare-masks --dataset market1501")
run("train --dataset market1501 -o runs/x --device cpu --workers 0")
run("export runs/x --onnx -o model.onnx")
shutil.copy("runs/x/model.safetensors", "model.safetensors")
run("eval runs/x --dataset market1501")
for split in ("query", "gallery"):
    run(f"extract runs/x --dataset market1501 --split {split} -o {split}.h5")
"""


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in command_lines(page, "bash", "console") if line[0] != "serve"]
    if not lines:
        pytest.skip("its examples need what a test does not have")
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    for line in lines:
        in_process(*line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_a_page_parses(page: Path) -> None:
    for line in command_lines(page, "bash", "console", "sh"):
        command, rest = commands(), line
        while hasattr(command, "commands") and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        assert not hasattr(command, "commands") or rest == ["--version"], f"no such command: {line}"
        if rest != ["--version"]:
            command.make_context(line[0], rest)


def test_every_command_has_a_page_with_its_options() -> None:
    pages = {named(page): page.read_text(encoding="utf-8") for page in COMMAND_PAGES}
    assert pages.keys() == commands().commands.keys()
    for name, text in pages.items():
        assert text.startswith(f"# reidkit {name}\n")
        assert f"<!-- options: {name}" in text
