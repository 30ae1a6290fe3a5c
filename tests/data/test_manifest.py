"""Data sets: manifests found by name, path or folder, splits read, counts verified."""

import shutil
from pathlib import Path

import pytest

from reidkit.data.manifest import (
    find_manifest,
    list_manifests,
    load_manifest,
    locate,
    open_dataset,
)
from reidkit.data.verify import unreadable, verify
from reidkit.errors import ConfigError, DataError
from reidkit.types import Sample

PUBLISHED = "Market-1501-v15.09.15"


def make_market(folder: Path) -> Path:
    """Empty files with Market-1501's names: the reader uses only the names."""
    names = {
        "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c6s3_000001_00.jpg", "Thumbs.db"],
        "query": ["0001_c1s1_001051_00.jpg", "readme.mat"],
        "bounding_box_test": [
            "-1_c1s1_000401_03.jpg",
            "0000_c2s1_000451_01.jpg",
            "0001_c3s1_000451_01.jpg.jpg",
            "._0001_c3s1_000451_01.jpg",
        ],
    }
    for parent, files in names.items():
        (folder / parent).mkdir(parents=True)
        for file in files:
            (folder / parent / file).touch()
    return folder


def test_market_is_read_by_its_file_names(tmp_path: Path) -> None:
    make_market(tmp_path / PUBLISHED)
    data = open_dataset("market1501", tmp_path)
    assert data.train == (
        Sample("bounding_box_train/0002_c1s1_000451_03.jpg", 2, 1),
        Sample("bounding_box_train/0007_c6s3_000001_00.jpg", 7, 6),
    )
    assert [(s.pid, s.camid, s.role) for s in data.gallery if isinstance(s, Sample)] == [
        (-1, 1, "junk"),
        (0, 2, "distractor"),
        (1, 3, "person"),
    ]
    assert (data.name, data.protocol, data.synthetic) == ("market1501", "market", False)
    assert data.task == "retrieval"


@pytest.mark.parametrize("alias", ["Market-1501-v15.09.15", "Market-1501", "market1501", "."])
def test_the_folder_may_have_any_of_its_known_names(tmp_path: Path, alias: str) -> None:
    folder = make_market(tmp_path / "root" / alias)
    assert locate("market1501", tmp_path / "root")[1].resolve() == folder.resolve()


def test_the_data_root_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_market(tmp_path / PUBLISHED)
    monkeypatch.setenv("REIDKIT_DATA", str(tmp_path))
    assert open_dataset("market1501").root == tmp_path / PUBLISHED


def test_the_published_counts_of_market_are_in_its_manifest() -> None:
    """12,936 of 751; 3,368 of 750; 13,115 persons + 2,798 distractors + 3,819 junk."""
    splits = load_manifest(find_manifest("market1501")).splits
    assert (splits["train"].images, splits["train"].ids) == (12936, 751)
    assert (splits["query"].images, splits["query"].ids) == (3368, 750)
    gallery = splits["gallery"]
    assert gallery.images is not None
    assert (gallery.junk, gallery.distractors) == (3819, 2798)
    assert gallery.images - gallery.junk == 15913
    assert gallery.images - gallery.junk - gallery.distractors == 13115


@pytest.mark.parametrize("name", sorted(list_manifests()))
def test_every_packaged_manifest_is_valid_and_names_its_source(name: str) -> None:
    manifest = load_manifest(list_manifests()[name])
    assert manifest.name == name
    assert manifest.title and manifest.home and manifest.licence and manifest.folders


def test_different_counts_are_reported(tmp_path: Path) -> None:
    make_market(tmp_path / PUBLISHED)
    manifest, root = locate("market1501", tmp_path)
    checks = verify(manifest, open_dataset("market1501", tmp_path))
    wrong = {(c.split, c.what): (c.found, c.expected) for c in checks if not c.passed}
    assert root == tmp_path / PUBLISHED
    assert wrong["train", "images"] == (2, 12936)
    assert wrong["gallery", "junk"] == (1, 3819)
    assert wrong["all", "cameras"] == (4, 6)


def test_identities_in_both_train_and_test_are_reported(tmp_path: Path) -> None:
    root = make_market(tmp_path / PUBLISHED)
    (root / "bounding_box_train" / "0001_c2s1_000000_00.jpg").touch()
    manifest, _ = locate("market1501", tmp_path)
    checks = verify(manifest, open_dataset("market1501", tmp_path))
    assert [c.found for c in checks if c.what == "ids both in train and test"] == [1]


def test_a_synthetic_data_set_matches_its_own_manifest(market: Path) -> None:
    manifest, root = locate(str(market))
    data = open_dataset(str(market))
    assert all(check.passed for check in verify(manifest, data))
    assert unreadable(data, on_progress=lambda done, total: None) == []
    assert root == market and data.synthetic


def test_a_synthetic_data_set_can_replace_a_published_one(market: Path, tmp_path: Path) -> None:
    shutil.copytree(market, tmp_path / PUBLISHED)
    data = open_dataset("market1501", tmp_path)
    assert data.name == "market1501" and data.synthetic
    assert data.fingerprint == open_dataset(str(market)).fingerprint


def test_the_fingerprint_depends_on_names_and_labels_but_not_on_the_folder(
    market: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(market, copy)
    assert open_dataset(str(copy)).fingerprint == open_dataset(str(market)).fingerprint
    first = next((copy / "bounding_box_train").glob("*.jpg"))
    first.rename(first.with_name("0999_c1s1_000000_00.jpg"))
    assert open_dataset(str(copy)).fingerprint != open_dataset(str(market)).fingerprint


def test_deep_verification_names_images_that_cannot_be_decoded(
    market: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(market, copy)
    victim = next((copy / "query").glob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[:200])
    (message,) = unreadable(open_dataset(str(copy)), on_progress=lambda done, total: None)
    assert str(victim) in message


def test_missing_data_are_reported_with_the_expected_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected .*Market-1501-v15\.09\.15 .*--data-root DIR"):
        open_dataset("market1501", tmp_path)
    with pytest.raises(DataError, match=r"unknown data set 'market1503'\. Did you mean market1501"):
        open_dataset("market1503", tmp_path)
    root = make_market(tmp_path / PUBLISHED)
    shutil.rmtree(root / "query")
    with pytest.raises(DataError, match=r"\[query\] missing folder .*query"):
        open_dataset("market1501", tmp_path)
    shutil.rmtree(root / "bounding_box_test")
    with pytest.raises(
        DataError, match=r"2 problems\n  \[query\] .*\n  \[gallery\] missing folder"
    ):
        open_dataset("market1501", tmp_path)
    (root / "query").mkdir()
    (root / "bounding_box_test").mkdir()
    with pytest.raises(DataError, match=r"\[query\] found no image under .*query"):
        open_dataset("market1501", tmp_path)


def test_image_names_that_do_not_match_are_reported(tmp_path: Path) -> None:
    root = make_market(tmp_path / PUBLISHED)
    (root / "query" / "holiday.jpg").touch()
    with pytest.raises(DataError, match=r"\[query\] 1 image names .* the first is holiday\.jpg"):
        open_dataset("market1501", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('reader = "patern"', "Did you mean pattern"),
        ("format = 2", "this reidkit reads format 1"),
        ('protocol = "markt"', "protocol must be one of market, none, mars"),
        ('task = "classification"', "has no protocol"),
        ('cameras = "none"', 'Use cameras = "none" and protocol = "none" together'),
        ('colour = "red"', "unknown key colour"),
        ("cameras = true", "cameras must be"),
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path: Path, line: str, message: str) -> None:
    keys = {"format": "1", "name": '"x"', "reader": '"pattern"', "protocol": '"market"'}
    keys["cameras"] = "6"
    key, _, value = line.partition(" = ")
    lines = [f"{k} = {v}" for k, v in {**keys, key: value}.items()]
    (tmp_path / "x.toml").write_text("\n".join([*lines, "[splits.train]", "images = 1"]))
    with pytest.raises((DataError, ConfigError), match=message):
        load_manifest(tmp_path / "x.toml")


def test_retrieval_needs_a_protocol(tmp_path: Path) -> None:
    text = 'format = 1\nname = "x"\nreader = "pattern"\ncameras = 2\n[splits.train]\nimages = 1\n'
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(DataError, match=r"missing key protocol\. Use one of market, none, mars"):
        load_manifest(tmp_path / "x.toml")


def test_errors_in_a_split_name_the_whole_key(tmp_path: Path) -> None:
    text = list_manifests()["market1501"].read_text().replace("images = 3368", "image = 3368")
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_manifest(tmp_path / "x.toml")
    expected = "x.toml: unknown key splits.query.image. Did you mean splits.query.images?"
    assert str(caught.value) == expected


def test_folders_of_manifests_can_be_set_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = list_manifests()["market1501"].read_text().replace('"market1501"', '"mine"')
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setenv("REIDKIT_MANIFESTS", str(tmp_path))
    assert find_manifest("mine") == tmp_path / "mine.toml"
