"""`reidkit report` writes a page, or with --card a model card, beside the checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import logging
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit import checkpoint


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained / "runs" / "one", tmp_path / "copy")


def test_the_card_is_written_into_the_run_folder_with_the_sha256_of_the_model(
    run_copy: Path, run: Callable[..., str]
) -> None:
    assert run("report", run_copy, "--card").strip() == str(run_copy / "MODEL_CARD.md")
    text = (run_copy / "MODEL_CARD.md").read_text()
    digest = hashlib.sha256((run_copy / "model.safetensors").read_bytes()).hexdigest()
    assert f"`{digest}`" in text
    assert "| licence of the data | CC0-1.0 |" in text
    assert str(run_copy.parent) not in text


def test_the_card_can_be_printed(run_copy: Path, run: Callable[..., str]) -> None:
    text = run("report", run_copy / "model.safetensors", "--card", "-o", "-")
    assert text.startswith("# iaunet on synth-market1501\n")
    assert not (run_copy / "MODEL_CARD.md").exists()


def test_an_edited_card_is_only_replaced_with_overwrite(
    run_copy: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    edited = run_copy / "MODEL_CARD.md"
    edited.write_text("mine")
    assert "Add --overwrite to replace it" in refuse("report", run_copy, "--card")
    assert edited.read_text() == "mine"
    run("report", run_copy, "--card", "--overwrite")
    assert edited.read_text().startswith("# iaunet")


def test_commands_of_the_card_work_when_pasted(
    market: Path,
    run_copy: Path,
    tmp_path: Path,
    run: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = run("report", run_copy, "--card", "-o", "-")
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    folder = tmp_path / "published"
    (folder / "data").mkdir(parents=True)
    shutil.copy(run_copy / "model.safetensors", folder)
    (folder / "data" / "synth-market1501").symlink_to(market)
    (folder / "photos").symlink_to(market / "query")
    monkeypatch.chdir(folder)
    commands = [shlex.split(line) for line in block[1].splitlines()]
    assert [command[:2] for command in commands] == [
        ["reidkit", name] for name in ("eval", "extract", "export")
    ]
    for command in commands:
        run(*command[1:])
    assert (folder / "features.h5").is_file() and (folder / "model.onnx").is_file()


def test_results_of_other_model_files_are_left_out(
    run_copy: Path, run: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = run_copy / "model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    metrics = checkpoint.read_header(model).metrics
    names = ("pid", "camid", "average_precision", "inverse_negative_penalty", "rank_1")
    measured = metrics | {"ap": "step", "per_query": {name: [1] for name in names}}
    results = [
        measured | {"dataset": name, "model_sha256": model, "rule": f"{name} rule"}
        for name, model in (("own", digest), ("other", "0" * 64))
    ]
    (run_copy / "metrics.json").write_text(json.dumps({"results": results}))
    text = run("report", run_copy, "--card", "-o", "-")
    assert "own rule" in text and "other rule" not in text
    assert "left out 1 of 2 results" in caplog.text


def test_a_synthetic_data_set_does_not_take_the_licence_of_the_published_one(
    run_copy: Path, run: Callable[..., str]
) -> None:
    network, header = checkpoint.load(run_copy / "model.safetensors")
    alone = run_copy.parent / "alone.safetensors"
    checkpoint.save(alone, network, dataclasses.replace(header, dataset="market1501"))
    text = run("report", alone, "--card", "-o", "-")
    assert "academic research only" not in text
    assert "Licence of the training data: synthetic images, rendered by reidkit." in text


def test_a_data_set_without_a_manifest_gives_a_warning(
    run_copy: Path, run: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    (run_copy / "config.toml").unlink()
    model = run_copy / "model.safetensors"
    assert "synthetic images, rendered" in run("report", run_copy, "--card", "-o", "-")
    assert caplog.text == ""  # synthetic data have no owner to ask
    network, header = checkpoint.load(model)
    checkpoint.save(model, network, dataclasses.replace(header, synthetic=False))
    assert "not known; ask the owner" in run("report", run_copy, "--card", "-o", "-")
    assert "the licence of the training data is not stated" in caplog.text


def test_a_run_that_was_copied_elsewhere_says_how_to_name_its_data_set(
    run_copy: Path, refuse: Callable[..., str]
) -> None:
    (run_copy / "config.toml").write_text("")
    message = refuse("report", run_copy)
    assert "unknown data set 'synth-market1501'" in message
    assert f"Pass the data set's folder: reidkit report {run_copy} --dataset FOLDER" in message


def test_a_checkpoint_is_needed(run_copy: Path, refuse: Callable[..., str]) -> None:
    assert "no such run: nothing" in refuse("report", "nothing", "--card")
    onnx = run_copy / "model.onnx"
    onnx.touch()
    assert "Pass the checkpoint" in refuse("report", onnx, "--card")


def test_the_page_of_a_run_has_its_pictures_and_repeats_it(
    run_copy: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    assert run("report", run_copy, "--worst", 2).strip() == str(run_copy / "report.html")
    text = (run_copy / "report.html").read_text()
    assert text.count('<section class="list">') == 2
    for section in ("results", "cameras", "worst", "attention", "training", "data", "settings"):
        assert f'<h2 id="{section}"' in text
    commands = [
        shlex.split(html.unescape(line)) for line in re.findall(r"<pre><code>(.*)</code>", text)
    ]
    assert [command[1] for command in commands] == ["prepare-masks", "train", "eval", "report"]
    assert "Add --overwrite to replace it" in refuse("report", run_copy)


def test_a_page_without_images_needs_no_data_set(
    run_copy: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    settings = (run_copy / "config.toml").read_text()
    (run_copy / "config.toml").write_text(re.sub(r'root = ".*"', 'root = "gone"', settings))
    assert "--no-images" in refuse("report", run_copy)
    run("report", run_copy, "--no-images", "-o", "r.html")
    text = Path("r.html").read_text()
    assert "Made without the images" in text and "data:image" not in text
    assert "<td>mAP</td>" not in text and ">CMC<" in text and ">ROC<" not in text


def test_a_page_of_extracted_features_embeds_nothing(
    run_copy: Path, market: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    for split in ("query", "gallery"):
        run("extract", run_copy, "--dataset", market, "--split", split, "-o", f"{split}.h5")
    files = ("--query-features", "query.h5", "--gallery-features", "gallery.h5")
    run("report", run_copy, *files, "--no-images", "-o", "r.html")
    text = Path("r.html").read_text()
    assert ">ROC<" in text and ">Distances<" in text and "data:image" not in text
    other = run_copy.parent / "other.safetensors"
    network, header = checkpoint.load(run_copy / "model.safetensors")
    checkpoint.save(other, network, dataclasses.replace(header, num_ids=header.num_ids, git="x"))
    assert "was not extracted by this checkpoint" in refuse("report", other, *files, "--no-images")


def test_mistakes_in_a_page_say_what_to_type(run_copy: Path, refuse: Callable[..., str]) -> None:
    assert "-o report.html" in refuse("report", run_copy, "-o", "-")
    assert "pass both" in refuse("report", run_copy, "--query-features", "q.h5")
    assert "between 0 and 1" in refuse("report", run_copy, "--target-fpr", "2")


def test_embeddings_are_shown_as_a_map(
    run_copy: Path, market: Path, run: Callable[..., str], refuse: Callable[..., str]
) -> None:
    map_ = ("visualize", "embedding")
    text = run(*map_, run_copy, "--dataset", market, "--count", 12, "--html", "map.html")
    assert text.splitlines()[0].startswith("12 images: PCA, ")
    assert Path("map.html").read_text().count("data:image") == 12
    run("extract", run_copy, "--dataset", market, "--split", "query", "-o", "q.h5")
    run(*map_, "q.h5", "--colour", "camera", "--html", "points.html", "--png", "points.png")
    assert Path("points.png").is_file() and "data:image" not in Path("points.html").read_text()
    again = (*map_, "q.h5", "--images-root", market, "--html", "points.html")
    assert "embedding.png exists. Add --overwrite" in refuse(*again)
    run(*again, "--overwrite")
    assert "data:image" in Path("points.html").read_text()
    map_ = (*map_, "--overwrite")
    assert "leave out --dataset" in refuse(*map_, "q.h5", "--dataset", market)
    assert "ends in .png" in refuse(*map_, "q.h5", "--png", "map.gif")
    assert "belongs to a features file" in refuse(*map_, run_copy, "--images-root", market)
