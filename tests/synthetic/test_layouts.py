"""Every layout is read by the reader of the published data set, with the right counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from reidkit.choices import SyntheticLayout
from reidkit.data.manifest import list_manifests, load_manifest, locate, open_dataset, read_dataset
from reidkit.data.verify import verify
from reidkit.synthetic import LAYOUTS
from reidkit.synthetic.layouts.planning import frame_kinds
from reidkit.types import Tracklet, frames

SyntheticDataset = Callable[[str], Path]
PUBLISHED = sorted(set(LAYOUTS) & set(list_manifests()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_passes_verification(layout: str, synthetic_dataset: SyntheticDataset) -> None:
    manifest, root = locate(str(synthetic_dataset(layout)))
    checks = verify(manifest, read_dataset(manifest, root))
    assert [check for check in checks if not check.passed] == []
    assert any(check.expected for check in checks) and manifest.synthetic


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_training_and_one_test_identity_are_enough(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "m", train_pids=1, test_pids=1, seed=3, workers=1)
    manifest, root = locate(str(tmp_path / "m"))
    assert manifest.name.partition("@")[0] == f"synth-{layout}"
    assert all(check.passed for check in verify(manifest, read_dataset(manifest, root)))


def test_the_command_line_offers_every_layout() -> None:
    assert set(get_args(SyntheticLayout)) == set(LAYOUTS)


def test_every_published_data_set_has_a_synthetic_counterpart() -> None:
    assert sorted(list_manifests()) == PUBLISHED


@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_published_manifest_reads_the_same_data(
    layout: str, synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    published = load_manifest(list_manifests()[layout])
    root = tmp_path / published.folders[0]
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir()
    for path in synthetic_dataset(layout).iterdir():
        if path.name != "manifest.toml":
            (root / path.name).symlink_to(path)
    data = open_dataset(layout, tmp_path)
    synthetic = open_dataset(str(synthetic_dataset(layout)))
    assert (data.train, data.query, data.gallery) == (
        synthetic.train,
        synthetic.query,
        synthetic.gallery,
    )
    assert data.fingerprint == synthetic.fingerprint and not data.synthetic
    assert data.protocol == synthetic.protocol and data.dense == synthetic.dense


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"cifar100"}))
def test_training_images_have_label_maps_of_their_size(
    layout: str, synthetic_dataset: SyntheticDataset
) -> None:
    data = open_dataset(str(synthetic_dataset(layout)))
    for sample in list(frames(data.train))[::7]:
        labels = data.root / "labels" / f"{sample.path.rpartition('.')[0]}.png"
        with Image.open(data.root / sample.path) as image, Image.open(labels) as map_:
            assert image.size == map_.size and np.asarray(map_).max() <= 19


@pytest.mark.parametrize("layout", ["mars", "csv"])
def test_equal_seeds_give_equal_files(
    layout: str, synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    LAYOUTS[layout](tmp_path / "again", train_pids=3, test_pids=3, seed=1, workers=1)
    first, again = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (synthetic_dataset(layout), tmp_path / "again")
    )
    assert first == again


def test_tracklets_have_1_to_60_frames_with_a_trackers_errors() -> None:
    tracklets = [frame_kinds(np.random.default_rng(seed)) for seed in range(400)]
    lengths = [len(kinds) for kinds in tracklets]
    assert min(lengths) == 1 and max(lengths) <= 60 and 9 < np.median(lengths) < 20
    assert all(kinds.count("other") <= len(kinds) / 3 for kinds in tracklets)
    kinds = [kind for tracklet in tracklets for kind in tracklet]
    for kind in ("other", "background", "fragment"):
        assert 0.01 < kinds.count(kind) / len(kinds) < 0.12
    assert kinds.count("person") / len(kinds) > 0.8


def test_the_csv_gallery_mixes_tracklets_and_images(synthetic_dataset: SyntheticDataset) -> None:
    gallery = open_dataset(str(synthetic_dataset("csv"))).gallery
    assert {isinstance(item, Tracklet) for item in gallery} == {True, False}


def test_the_gait_continues_through_a_tracklet(synthetic_dataset: SyntheticDataset) -> None:
    """Consecutive frames are more similar than frames of other tracklets."""
    data = open_dataset(str(synthetic_dataset("dukemtmc-videoreid")))
    long = [t for t in data.train if isinstance(t, Tracklet) and len(t.frames) >= 8]
    images = [
        [np.asarray(Image.open(data.root / s.path), np.float32) for s in t.frames[:8]] for t in long
    ]
    near = np.mean([np.abs(p[k] - p[k + 1]).mean() for p in images for k in range(7)])
    far = np.mean([np.abs(images[0][0] - p[0]).mean() for p in images[1:]])
    assert near < 0.5 * far
