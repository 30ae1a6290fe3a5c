"""datasets verify, init, subset and unpack, and prepare-masks on data sets with own label maps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

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
    advice = refuse(*train).partition("Run: ")[2].split()
    assert "--labels" not in advice
    run(*advice[1:])  # the line that the user is told to type
    assert Path("masks/mars.h5").is_file()
    status, _, err = command(*train, "--set", "arch.absent=1")  # the masks are found
    assert status == 2 and "part masks" not in err

    shutil.copytree(mars, "MARS")
    Path("MARS/manifest.toml").unlink()  # only the published manifest, which has no label maps
    copy = run("prepare-masks", "--dataset", "mars", *ROOT, "-o", "copy.h5", "--json")
    assert json.loads(copy)["source"] == "index maps (lip)"
