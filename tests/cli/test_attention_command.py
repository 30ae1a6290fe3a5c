"""`reidkit visualize attention` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from reidkit import checkpoint
from reidkit.preprocess import Preprocess


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint of iaunet, 64x32, untrained."""
    torch.manual_seed(0)
    options = {"backbone": "resnet18", "stages": [2]}
    header = checkpoint.Header("iaunet", options, Preprocess(size=(64, 32)), num_ids=4)
    checkpoint.save(tmp_path / "model.safetensors", checkpoint.build(header), header)
    return tmp_path / "model.safetensors"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image whose name is hard on shells, pages and fonts."""
    path = tmp_path / 'a "b" <c>\n%s{d} é日.png'
    Image.new("RGB", (50, 90), (200, 30, 60)).save(path)
    return path


def test_figures_of_an_image_with_an_odd_name(
    model: Path, photo: Path, run: Callable[..., str]
) -> None:
    text = run("visualize", "attention", model, "--image", photo, "--device", "cpu", "-o", "out")
    assert "out/part-maps-stage2.png  as IAUnet, Fig. 6" in text
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "channel-relations-stage2.png",
        "grad-cam.png",
        "part-maps-stage2.png",
        "spatial-relations-stage2.png",
    ]
    for path in Path("out").iterdir():
        with Image.open(path) as picture:
            picture.load()


def test_json_contains_the_numbers_of_a_clip(
    model: Path, synthetic_dataset: Callable[[str], Path], run: Callable[..., str]
) -> None:
    options = ("--dataset", synthetic_dataset("mars"), "--frames", 3, "--device", "cpu", "--json")
    figures = ("--figure", "temporal-relations", "--figure", "part-maps")
    document = json.loads(run("visualize", "attention", model, *options, *figures))
    assert document["architecture"] == "iaunet"
    maps, relations = document["figures"]
    assert (maps["figure"], maps["place"], len(maps["numbers"])) == ("part-maps", "stage2", 3)
    percent = relations["numbers"][0]["parts"]["shoes"]["percent"]
    assert [round(sum(row), 3) for row in percent] == [100, 100, 100]
    assert all(row[k] == 0 for k, row in enumerate(percent))


def test_images_of_a_data_set_are_chosen_by_name_or_number(
    model: Path, market: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    query = sorted(path.name for path in (market / "query").iterdir())[3]
    base = ("visualize", "attention", model, "--dataset", market, "--figure", "grad-cam")
    base = (*base, "--device", "cpu", "--json")
    (figure,) = json.loads(run(*base, "--query", query))["figures"]
    assert [Path(file).name for row in figure["numbers"] for (file,) in row["images"]] == [query]
    assert "grad-cam.png exists. Add --overwrite" in refuse(*base, "--count", 2)
    (figure,) = json.loads(run(*base, "--count", 2, "--overwrite"))["figures"]
    assert len(figure["numbers"]) == 2


def test_a_second_image_gives_grad_cam_of_the_cosine(
    model: Path, photo: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.effect_noise((50, 90), 80).save(other)
    options = ("--image", photo, "--compare", other, "--figure", "grad-cam", "--device", "cpu")
    document = json.loads(run("visualize", "attention", model, *options, "--json"))
    (numbers,) = document["figures"][0]["numbers"]
    assert numbers["score_of"] == "cosine" and -1 <= numbers["score"] < 1
    assert len(numbers["maps"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--figure", "receptive-fields"), "no receptive-fields. It has: part-maps, "),
        (("--figure", "temporal-relations"), "temporal-relations needs a clip. Add: --tracklet"),
        (("--at", "0.5"), "--at 0.5: write X,Y as fractions"),
        (("--at", "0.5,1.5"), "--at 0.5,1.5: write X,Y as fractions"),
        (("--dataset", "market1501"), "give either --image and --tracklet, or --dataset"),
        (("--compare", "x.png", "--figure", "part-maps"), "Add --figure grad-cam"),
        (("--tracklet", "empty"), "expected a folder with the frames of a tracklet"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_plotted_is_refused(
    options: tuple[str, ...], message: str, model: Path, photo: Path, refuse: Callable[..., str]
) -> None:
    Path("empty").mkdir()
    given = ("--image", photo, "--device", "cpu", *options)
    assert message in refuse("visualize", "attention", model, *given)


def test_an_onnx_file_is_refused(refuse: Callable[..., str]) -> None:
    Path("model.onnx").touch()
    assert "has no blocks. Pass a checkpoint" in refuse("visualize", "attention", "model.onnx")
