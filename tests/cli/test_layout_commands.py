"""Every command on every layout, as a user types them; tiny networks, one epoch."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reidkit.data.manifest import open_dataset
from reidkit.features import read_features
from reidkit.runtime.embedder import Classifier, embed_images, load_embedder
from reidkit.synthetic import LAYOUTS

SyntheticDataset = Callable[[str], Path]
Run = Callable[..., str]
TINY = [
    *("--preset", "none", "--set", "arch.backbone=resnet18", "--size", "32x16"),
    *("--weights", "none", "--epochs", "1", "--batch", "4", "--workers", "0", "--device", "cpu"),
    *("--precision", "fp32", "--set", "optim.name=sgd"),
    *("--set", "optim.momentum=0.0", "--set", "optim.nesterov=false"),  # less to write
]
VIDEO = ("mars", "dukemtmc-videoreid")
PEOPLE = sorted(set(LAYOUTS) - {"cifar100"})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_through_the_pipeline(
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
    assert 0 <= trained["metrics"]["mAP"] <= 1
    judged = json.loads(run("eval", "--dataset", data, "--device", "cpu", "--json"))
    assert judged["mAP"] == pytest.approx(trained["metrics"]["mAP"], abs=1e-6)
    assert judged["frames"] == (4 if layout in VIDEO else 0) and judged["synthetic"]
    run("extract", "--dataset", data, "--split", "query", "-o", "q.h5", "--device", "cpu")
    features = read_features(Path("q.h5"))
    assert len(features.features) == judged["queries"]


def test_a_video_network_exports_and_its_export_judges_tracklets_the_same(
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


def test_extract_takes_a_folder_of_anybodys_tracklets(
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


def test_classes_are_judged_by_the_classifiers_accuracy(
    synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    data = synthetic_dataset("cifar100")
    run("train", "--dataset", data, "-o", "runs/one", "--arch", "baseline", *TINY)
    judged = json.loads(run("eval", "runs/one", "--dataset", data, "--device", "cpu", "--json"))
    assert judged["protocol"] == "classification" and judged["queries"] == 18
    test = open_dataset(str(data)).query
    classifier = Classifier(load_embedder(Path("runs/one"), device="cpu"))
    rows = embed_images(classifier, [data / item.path for item in test])
    right = rows.argmax(1) == np.array([item.pid for item in test])
    assert judged["cmc"][0] == pytest.approx(right.mean())


def test_unpack_takes_an_archive_and_makes_images_of_its_records(
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


def test_init_then_verify_is_all_that_ones_own_folder_needs(
    synthetic_dataset: SyntheticDataset, run: Run
) -> None:
    shutil.copytree(synthetic_dataset("csv") / "people", "own")
    run("datasets", "init", "own", "--cameras", r"gate (\d+)")
    assert json.loads(run("datasets", "verify", "own", "--json"))["passed"]
