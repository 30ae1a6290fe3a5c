"""The whole pipeline on the command line, and the error messages of every command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.features import read_features

Refuse = Callable[..., str]

TINY = [
    *("--set", "arch.backbone=resnet18", "--set", "arch.stages=[2]", "--size", "64x32"),
    *("--weights", "none", "--epochs", "1", "--batch", "16", "--workers", "0", "--device", "cpu"),
]
NO_PARTS = ["--set", "loss.part_attention=0"]


def test_help_does_not_import_heavy_packages() -> None:
    code = (
        "import sys\nfrom reidkit.cli import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'onnxruntime', 'h5py', 'matplotlib', 'scipy', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "prepare-masks" in done.stdout and "export" in done.stdout


def test_eval_takes_the_newest_run_and_prints_one_json_document(
    market: Path, trained: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    report = json.loads(run("eval", "--dataset", market, "--device", "cpu", "--rerank", "--json"))
    assert report["model"] == "runs/one/model.safetensors" and report["synthetic"]
    assert 0 < report["mINP"] <= report["mAP"] <= 1
    assert report["cmc"] == sorted(report["cmc"]) and len(report["cmc"]) >= 20
    assert report["reranked"]["rerank"] == {"k1": 20, "k2": 6, "lambda": 0.3}
    table = run("eval", "runs/one", "--dataset", market, "--device", "cpu")
    assert "rank-20" in table and f"{100 * report['mAP']:.2f}" in table


def test_an_export_is_verified_and_has_the_same_evaluation(
    market: Path, trained: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    import onnx
    import onnxruntime as ort

    model, target = trained / "runs/one", tmp_path / "model.onnx"
    done = json.loads(run("export", model, "--onnx", "-o", target, "--json"))
    assert [parity["batch"] for parity in done["parity"]] == [1, 3, 8]
    assert all(parity["cosine"] >= 0.9999 for parity in done["parity"])
    reports = [
        json.loads(run("eval", path, "--dataset", market, "--device", "cpu", "--json"))
        for path in (model, target)
    ]
    assert abs(reports[0]["mAP"] - reports[1]["mAP"]) <= 1e-4

    proto = onnx.load(target)
    assert [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")] == [16]
    assert b".py" not in target.read_bytes() or b"reidkit/models" not in target.read_bytes()
    session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].name == "images"
    assert session.get_outputs()[0].name == "embeddings"
    images = np.random.default_rng(0).normal(size=(5, 3, 64, 32)).astype(np.float32)
    embeddings = session.run(None, {"images": images})[0]
    assert embeddings.shape == (5, 512)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_extract_writes_a_split_or_your_own_images(
    market: Path, trained: Path, tmp_path: Path, run: Callable[..., str]
) -> None:
    model = trained / "runs/one/model.safetensors"
    run("extract", model, "--dataset", market, "--split", "query", "-o", "q.h5", "--device", "cpu")
    features = read_features(tmp_path / "q.h5")
    images = sorted((market / "query").glob("*.jpg"))
    assert features.features.shape == (len(images), 512)
    assert features.paths[0] == f"query/{images[0].name}"
    assert features.pids[0] == int(images[0].name[:4])
    assert features.attributes["dataset"] == "synth-market1501"
    assert not features.attributes["normalised"]

    (tmp_path / "mine/deep").mkdir(parents=True)
    shutil.copy(images[0], tmp_path / "mine/deep/a.jpg")
    Image.new("RGB", (50, 90), "red").save(tmp_path / "mine/b.png")
    for images_argument, count in (("mine", 2), ("mine/b.png", 1), ("mine/**/*.jpg", 1)):
        run("extract", model, "--images", images_argument, "-o", "own.h5", "--device", "cpu")
        own = read_features(tmp_path / "own.h5")
        assert own.features.shape == (count, 512)
    np.testing.assert_allclose(own.features[0], features.features[0], rtol=1e-4, atol=1e-4)
    assert own.pids.tolist() == [-1]


def test_verify_names_the_count_that_differs(
    market: Path, tmp_path: Path, run: Callable[..., str], refuse: Refuse
) -> None:
    assert "ok" in run("datasets", "verify", market, "--deep")
    shutil.copytree(market, tmp_path / "copy")
    next((tmp_path / "copy/bounding_box_train").glob("*.jpg")).unlink()
    total = len(list((market / "bounding_box_train").glob("*.jpg")))
    message = refuse("datasets", "verify", "copy")
    assert f"[train] found {total - 1} images, expected {total}" in message and "copy" in message


def test_training_without_masks_names_the_command_that_prepares_them(
    market: Path, refuse: Refuse
) -> None:
    message = refuse("train", "--arch", "iaunet", "--dataset", market, *TINY)
    assert "masks/synth-market1501.h5 is missing" in message
    assert "Run: reidkit prepare-masks --dataset" in message


def test_a_folder_that_contains_a_run_is_not_overwritten(
    market: Path, trained: Path, refuse: Refuse
) -> None:
    masks = trained / "masks/synth-market1501.h5"
    message = refuse(
        "train", "--dataset", market, "--masks", masks, "-o", trained / "runs/one", *TINY
    )
    assert "contains a run" in message and "--resume" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--dataset", "DATA", "--arch", "iaunett"], "Did you mean iaunet?"),
        (["train", "--dataset", "DATA", "--set", "optim.learning_rate=1"], "mean optim.lr?"),
        (["train", "--dataset", "DATA", "--size", "large"], "HEIGHTxWIDTH"),
        (["train", "--dataset", "DATA", "--resume"], "no run to resume under runs"),
        (["train", "--dataset", "DATA", "--resume", "-o", "absent"], "no such run: absent"),
        (["train", "--dataset", "DATA", "--seed", "-1"], "--seed"),
        (["compare", "absent", "absent"], "does not exist. Pass a run folder"),
        (["train", "--dataset", "nowhere"], "unknown data set 'nowhere'"),
        (["train", "--dataset", "market1501"], "--data-root DIR"),
        (["train", "--dataset", "DATA", "--weights", "no.pth", *NO_PARTS], "no.pth"),
        (["eval", "--dataset", "DATA"], "no checkpoint given, and none found under runs"),
        (["eval", "absent.safetensors", "--dataset", "DATA"], "no such checkpoint"),
        (["eval", "absent.onnx", "--dataset", "DATA"], "absent.onnx does not exist"),
        (["extract", "absent.safetensors"], "give exactly one of --dataset NAME, --images PATH"),
        (["export", "absent.safetensors"], "no such checkpoint"),
        (["datasets", "show", "market1502"], "Did you mean market1501?"),
        (
            ["datasets", "synth", "x", "--layout", "markt1501"],
            "unknown layout 'markt1501': market1501,",
        ),
        (
            ["attention", "x", "--dataset", "DATA", "--masks", "x", "--split", "all"],
            "unknown split 'all': train, query or gallery",
        ),
    ],
)
def test_user_errors_are_one_message(
    arguments: list[str], expected: str, market: Path, refuse: Refuse
) -> None:
    assert expected in refuse(*[str(market) if a == "DATA" else a for a in arguments])


def test_a_broken_image_stops_the_command_with_its_path(
    market: Path, trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(market, tmp_path / "copy")
    victim = sorted((tmp_path / "copy/query").glob("*.jpg"))[-1]
    victim.write_bytes(victim.read_bytes()[:300])
    model = trained / "runs/one"
    message = refuse("eval", model, "--dataset", "copy", "--device", "cpu")
    assert str(victim.relative_to(tmp_path)) in message
    message = refuse("extract", model, "--images", victim, "-o", "f.h5", "--device", "cpu")
    assert victim.name in message
    assert not (tmp_path / "f.h5").exists() and not (tmp_path / "f.h5.partial").exists()


def test_cuda_is_refused_where_it_is_not_available(
    market: Path, trained: Path, refuse: Refuse
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    message = refuse("eval", trained / "runs/one", "--dataset", market, "--device", "cuda")
    assert (
        "device cuda: no such CUDA device" in message and "use --device cpu (in Python" in message
    )
    assert "unknown device" in refuse(
        "eval", trained / "runs/one", "--dataset", market, "--device", "gpu"
    )


def test_a_broken_training_image_is_one_line_even_from_a_worker_process(
    market: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(market, tmp_path / "copy")
    victim = sorted((tmp_path / "copy/bounding_box_train").glob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:300])
    for workers in ("0", "2"):
        tiny = [workers if TINY[i - 1] == "--workers" else TINY[i] for i in range(len(TINY))]
        options = [*tiny, *NO_PARTS, "-o", f"run{workers}"]
        message = refuse("train", "--dataset", "copy", *options)
        assert victim.name in message and message.count("\n") == 1


def test_an_incomplete_data_set_is_warned_about_before_it_is_used(
    market: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(market, tmp_path / "copy")
    sorted((tmp_path / "copy/bounding_box_test").glob("-1*.jpg"))[0].unlink()
    done = subprocess.run(
        [sys.executable, "-m", "reidkit", "eval", trained / "runs/one", "--dataset", "copy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "warning: synth-market1501 differs from its manifest: [gallery]" in done.stderr
    assert "reidkit datasets verify copy" in done.stderr
    assert "more difference" not in done.stderr  # there is one


def test_files_that_are_not_features_are_never_overwritten(
    market: Path, trained: Path, refuse: Refuse
) -> None:
    masks = trained / "masks/synth-market1501.h5"
    before = masks.read_bytes()
    options = ("--dataset", market, "-o", masks, "--device", "cpu")
    assert "is not a features file" in refuse("extract", trained / "runs/one", *options)
    assert masks.read_bytes() == before


def test_an_onnx_file_is_not_exported_again(refuse: Refuse) -> None:
    assert "is an ONNX file already" in refuse("export", "model.onnx")
