"""Every command on every layout, with tiny networks and one epoch."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reidkit.classification import class_probabilities
from reidkit.data.manifest import open_dataset
from reidkit.evaluation import percentages
from reidkit.features import read_features
from reidkit.runtime.embedder import load_embedder
from reidkit.synthetic import LAYOUTS

SyntheticDataset = Callable[[str], Path]
Run = Callable[..., str]
TINY = [
    *("--preset", "none", "--set", "arch.backbone=resnet18", "--size", "32x16"),
    *("--weights", "none", "--epochs", "1", "--batch", "4", "--workers", "0", "--device", "cpu"),
    *("--precision", "fp32", "--set", "optim.name=sgd"),
    *("--set", "optim.momentum=0.0", "--set", "optim.nesterov=false"),  # small checkpoints
]
VIDEO = ("mars", "dukemtmc-videoreid")
PEOPLE = sorted(set(LAYOUTS) - {"cifar100"})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_passes_through_the_pipeline(
    layout: str, synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    data = synthetic_dataset(layout)
    verified = json.loads(run("datasets", "verify", data, "--deep", "--json"))
    assert verified["passed"] and verified["synthetic"]
    assert json.loads(run("datasets", "show", data, "--json"))["synthetic"]
    stats = json.loads(run("datasets", "stats", data, "--json"))
    assert sum(stats["images"]["train"].values()) > 0 and stats["duplicates"] == []

    masks = ["--set", "loss.part_attention=0"]
    arch = ["--arch", "iaunet", "--set", "arch.stages=[2]"]
    if layout in PEOPLE:
        run("prepare-masks", "--dataset", data)
        masks = []
    else:
        arch = ["--arch", "baseline"]
    trained = json.loads(
        run("train", "--dataset", data, "-o", "runs/one", *arch, *TINY, *masks, "--json")
    )
    scores = percentages(trained["metrics"])
    assert all(0 <= score <= 100 for score in scores.values())
    document = json.loads(run("eval", "--dataset", data, "--device", "cpu", "--json"))
    assert percentages(document) == pytest.approx(scores, abs=1e-4) and document["synthetic"]
    assert document.get("frames", 0) == (4 if layout in VIDEO else 0)
    run("extract", "--dataset", data, "--split", "query", "-o", "q.h5", "--device", "cpu")
    features = read_features(Path("q.h5"))
    assert len(features.features) == len(open_dataset(str(data)).query)


def test_a_video_network_exports_with_the_same_evaluation(
    synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    data = synthetic_dataset("mars")
    run("train", "--dataset", data, "-o", "runs/one", "--arch", "baseline", *TINY)
    parities = json.loads(run("export", "runs/one", "--json"))["parity"]
    assert [p["frames"] for p in parities] == [4, 1, 7]
    reports = [
        json.loads(run("eval", model, "--dataset", data, "--device", "cpu", "--json"))
        for model in ("runs/one", "runs/one/model.onnx")
    ]
    assert reports[0]["mAP"] == pytest.approx(reports[1]["mAP"], abs=1e-4)
    rules = ["eval", "--dataset", data, "--device", "cpu", "--clips", "first", "--json"]
    assert json.loads(run(*rules))["clips"] == "first"


def test_extract_takes_a_folder_of_your_own_tracklets(
    synthetic_dataset: SyntheticDataset, run: Run, refuse: Callable[..., str]
) -> None:
    data = synthetic_dataset("dukemtmc-videoreid")
    run("train", "--dataset", data, "-o", "runs/one", "--arch", "baseline", *TINY)
    own = next(data.glob("train/0001"))
    arguments = ["extract", "runs/one", "--tracklets", own, "--device", "cpu"]
    run(*arguments, "-o", "own.h5")
    found = read_features(Path("own.h5"))
    assert len(found.features) == len(list(own.iterdir()))
    run("extract", "runs/one", "--dataset", data, "--split", "train", "-o", "t.h5")
    same = read_features(Path("t.h5"))
    rows = [same.paths.index(Path(path).relative_to(data).as_posix()) for path in found.paths]
    np.testing.assert_allclose(found.features, same.features[rows], rtol=1e-4, atol=1e-5)
    empty = refuse("extract", "runs/one", "--tracklets", next(own.iterdir()))
    assert "expected one sub-folder per tracklet" in empty


def test_a_classification_data_set_is_evaluated_by_the_accuracy_of_the_classifier(
    synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    data = synthetic_dataset("cifar100")
    run("train", "--dataset", data, "-o", "runs/one", "--arch", "baseline", *TINY)
    document = json.loads(run("eval", "runs/one", "--dataset", data, "--device", "cpu", "--json"))
    assert document["task"] == "classification" and document["images"] == 18
    test = open_dataset(str(data)).query
    probabilities = class_probabilities(
        load_embedder(Path("runs/one"), device="cpu"), [data / item.path for item in test]
    )
    correct = probabilities.argmax(1) == np.array([item.pid for item in test])
    assert document["top1"] == pytest.approx(correct.mean())


def test_unpack_extracts_an_archive_and_writes_its_records_as_images(
    tmp_path: Path, run: Run, refuse: Callable[..., str]
) -> None:
    records = np.zeros((3, 3074), np.uint8)
    records[:, 1] = [0, 1, 1]
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as archive:
        archive.writestr("cifar-100-binary/fine_label_names.txt", "apple\nbear\n")
        for split in ("train", "test"):
            archive.writestr(f"cifar-100-binary/{split}.bin", records.tobytes())
    run("datasets", "unpack", "cifar100", "--archive", "cifar.zip", "--data-root", "data")
    assert len(list((tmp_path / "data/cifar-100-binary/train").glob("*/*.png"))) == 3
    message = refuse("datasets", "verify", "cifar100", "--data-root", "data")
    assert "[train] found 3 images, expected 50000" in message


def test_init_makes_a_folder_of_images_a_verified_data_set(
    synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    shutil.copytree(synthetic_dataset("csv") / "people", "own")
    run("datasets", "init", "own", "--cameras", r"gate (\d+)")
    assert json.loads(run("datasets", "verify", "own", "--json"))["passed"]
