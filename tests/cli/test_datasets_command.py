"""datasets verify, init, subset and unpack, and prepare-masks on data sets with own label maps."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

SyntheticDataset = Callable[[str], Path]
Run = Callable[..., str]
Command = Callable[..., tuple[object, str, str]]


def test_verify_says_whose_counts_it_expects(
    synthetic_dataset: SyntheticDataset, run: Run, refuse: Run
) -> None:
    mars = synthetic_dataset("mars")
    published = run("datasets", "verify", "mars", "--data-root", mars)
    assert f"expected counts: {mars}/manifest.toml, synthetic data; not the published" in published
    own = run("datasets", "verify", mars)
    assert "manifest.toml, synthetic data" in own and "not the published" not in own
    document = json.loads(run("datasets", "verify", mars, "--json"))
    assert document["own_manifest"] == f"{mars}/manifest.toml"

    shutil.copytree(synthetic_dataset("market1501"), "Market-1501")
    Path("Market-1501/manifest.toml").unlink()
    assert "found 3 ids, expected 751" in refuse("datasets", "verify", "market1501", *ROOT)


ROOT = ("--data-root", ".")


def test_masks_of_a_synthetic_mars_come_from_its_own_label_maps(
    synthetic_dataset: SyntheticDataset, command: Command, run: Run, refuse: Run
) -> None:
    mars = synthetic_dataset("mars")
    train = ("train", "--dataset", "mars", "--data-root", mars, "--arch", "iaunet", "--device=cpu")
    advice = refuse(*train).partition("Run: ")[2].splitlines()[0].split()
    assert "--labels" not in advice
    run(*advice[1:])  # the line printed for pasting
    assert Path("masks/mars.h5").is_file()
    status, _, err = command(*train, "--set", "arch.absent=1")  # the masks are found
    assert status == 2 and "part masks" not in err

    shutil.copytree(mars, "MARS")
    Path("MARS/manifest.toml").unlink()  # only the published manifest, which has no label maps
    copy = run("prepare-masks", "--dataset", "mars", *ROOT, "-o", "copy.h5", "--json")
    assert json.loads(copy)["source"] == "index maps (lip)"


PATTERN = ("--pattern", r"^(?P<pid>\d{4})(?P<camid>\d{3})\.", "--camera-map", "1=1,2=1,3=2,4=2")


def save_cuhk01(folder: Path) -> None:
    """Files named as CUHK01's: ten people, two images in each of two cameras."""
    folder.mkdir(parents=True)
    for pid in range(1, 11):
        for number in range(1, 5):
            Image.new("RGB", (60, 160), (20 * pid, 50 * number, 0)).save(
                folder / f"{pid:04d}{number:03d}.png"
            )


def test_init_prints_a_summary_and_with_dry_run_writes_nothing(run: Run) -> None:
    save_cuhk01(Path("campus"))
    printed = run("datasets", "init", "campus", *PATTERN, "--dry-run")
    assert "campus: 10 people, 40 images, 2 cameras" in printed
    assert "train    5 people, 20 images, 2 cameras" in printed
    assert "  0001001.png: person 0001, camera 1, train" in printed
    assert not list(Path("campus").glob("*.toml")) + list(Path("campus").glob("*.csv"))
    written = run("datasets", "init", "campus", *PATTERN, "--test-fraction", "0.2")
    assert "query    2 people, 4 images, 2 cameras" in written
    assert "examples" not in written and "campus/manifest.toml" in written
    assert json.loads(run("datasets", "verify", "campus", "--json"))["passed"]


def test_init_warns_of_one_person_and_its_advice_can_be_typed(command: Command, run: Run) -> None:
    save_cuhk01(Path("my images/campus"))
    status, out, err = command("datasets", "init", "my images", "--dry-run")
    assert status == 0 and "1 person, 40 images, cameras unknown" in out
    assert "warning: all 40 images are of one person, campus." in err
    assert "warning: no training split" in err
    advice = shlex.split(err.partition("Run: reidkit ")[2].splitlines()[0])
    assert "10 people, 40 images, 2 cameras" in run(*advice)


def test_init_replaces_what_it_wrote_only_with_overwrite(run: Run, refuse: Run) -> None:
    save_cuhk01(Path("campus"))
    run("datasets", "init", "campus", *PATTERN)
    again = ("datasets", "init", "campus", *PATTERN, "--test-fraction", "0.2")
    assert "replace it with --overwrite" in refuse(*again)
    assert "train    8 people" in run(*again, "--overwrite")
    checks = json.loads(run("datasets", "verify", "campus", "--json"))["checks"]
    assert {c["found"] for c in checks if (c["split"], c["what"]) == ("train", "ids")} == {8}


def test_a_stray_image_does_not_hide_how_the_others_are_named(command: Command) -> None:
    save_cuhk01(Path("photos/campus"))
    Image.new("RGB", (9, 9)).save("photos/campus/cover.png")
    _, _, err = command("datasets", "init", "photos", "--dry-run")
    assert "The names look like CUHK01's, of 10 people. Move 1 other images out" in err
    assert "such as campus/cover.png. Run: reidkit datasets init photos --pattern" in err


def test_without_queries_the_summary_and_the_advice_are_of_these_images(refuse: Run) -> None:
    save_cuhk01(Path("campus"))
    for image in Path("campus").glob("????00[2-4].png"):
        image.unlink()
    message = refuse("datasets", "init", "campus", *PATTERN)
    assert "found 10 people and 10 images of one camera, 1, so there are no queries" in message
    message = refuse("datasets", "init", "campus", "--pattern", r"^(?P<pid>\d{4})")
    assert "found 10 people and 10 images: no test person has two images" in message
    assert "--cameras" not in message


def test_a_pattern_without_its_group_says_so(refuse: Run) -> None:
    save_cuhk01(Path("campus"))
    message = refuse("datasets", "init", "campus", "--pattern", r"\d{4}")
    assert "has no group pid" in message and r"--pattern '(?P<pid>\d+)_c(?P<camid>\d+)'" in message


def test_a_subset_is_a_data_set_for_every_command(
    synthetic_dataset: SyntheticDataset, run: Run, refuse: Run
) -> None:
    mars = synthetic_dataset("mars")
    arguments = ("datasets", "subset", "mars", "--data-root", mars, "--ids", "2", "-o", "small")
    printed = run(*arguments, "--images", "2")
    assert "small: mars-2ids (" in printed and "hard links)" in printed
    assert "train    2 people" in printed
    assert "synthetic data" in run("datasets", "verify", "small", "--deep")
    run("prepare-masks", "--dataset", "small")
    tiny = ("--set", "arch.backbone=resnet18", "--size", "32x16", "--preset", "none")
    options = (*tiny, "--weights", "none", "--epochs", "1", "--batch", "4", "--workers", "0")
    options = (*options, "--arch", "iaunet", "--set", "arch.stages=[2]", "--precision", "fp32")
    run("train", "--dataset", "small", *options, "--device", "cpu", "-o", "r")
    scores = json.loads(run("eval", "r", "--dataset", "small", "--device", "cpu", "--json"))
    assert scores["synthetic"] and scores["queries_without_match"] == 0
    assert "is not an empty folder" in refuse(*arguments)


def test_unpack_names_the_next_command(
    synthetic_dataset: SyntheticDataset, command: Command, run: Run
) -> None:
    shutil.make_archive("bbox_train", "zip", synthetic_dataset("mars"), "bbox_train")
    shutil.make_archive("rest", "gztar", synthetic_dataset("mars"))
    archives = ("--archive", "bbox_train.zip", "--archive", "rest.tar.gz")
    status, out, err = command("datasets", "unpack", "mars", *archives, "--data-root", "my data")
    assert status == 0 and out.strip() == "my data/MARS"
    assert "bbox_train.zip: " in err and " files written\n" in err and "there already" in err
    advice = shlex.split(err.partition("Run: reidkit ")[2])
    assert "synthetic data" in run(*advice)


def test_init_writes_the_manifest_of_a_table_whose_images_are_elsewhere(
    run: Run, refuse: Run
) -> None:
    save_cuhk01(Path("images"))
    Path("tables").mkdir()
    images = sorted(Path("images").resolve().glob("*.png"))
    lines = ["split,path,pid,camid"]
    for image in images:
        pid, number = image.name[:4], int(image.name[4:7])
        split = "train" if int(pid) < 6 else "query" if number == 1 else "gallery"
        lines.append(f"{split},{image},{pid},{'A' if number < 3 else 'B'}")
    Path("tables/people.csv").write_text("\n".join(lines))
    message = refuse("datasets", "verify", "tables/people.csv")
    advice = shlex.split(message.partition("Run: ")[2] or message.partition("one: ")[2])
    assert advice[1:] == ["datasets", "init", "tables/people.csv"]
    assert "point outside" in refuse(*advice[1:])
    assert "pass only --root" in refuse(*advice[1:], "--pattern", "(?P<pid>.)")
    printed = run(*advice[1:], "--root", "images")
    assert "tables: 10 people, 40 images, 2 cameras" in printed
    assert json.loads(run("datasets", "verify", "tables", "--deep", "--json"))["passed"]
    assert "is for a table" in refuse("datasets", "init", "images", "--root", "images")
