"""datasets subset: a small data set whose protocol still means something."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.data.checks import unmatched_queries
from reidkit.data.manifest import locate, open_dataset, read_dataset
from reidkit.data.subset import LinkKind, select_subset, write_subset
from reidkit.data.verify import verify
from reidkit.errors import DataError
from reidkit.synthetic import LAYOUTS
from reidkit.types import SPLITS, Dataset, Item, frames

SyntheticDataset = Callable[[str], Path]


def quiet(done: int, total: int) -> None:
    pass


def make(
    source: Path, target: Path, *, ids: int = 2, images: int | None = None
) -> Counter[LinkKind]:
    manifest, folder = locate(str(source))
    part = select_subset(read_dataset(manifest, folder), ids=ids, images=images)
    return write_subset(target, part, manifest, name="part", title="Part", on_progress=quiet)


def people(items: tuple[Item, ...]) -> set[int]:
    return {item.pid for item in items if item.role == "person"}


@pytest.mark.parametrize("images", [None, 1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_subset_of_any_layout_is_a_verified_data_set_of_that_many_identities(
    layout: str, images: int | None, synthetic_dataset: SyntheticDataset, tmp_path: Path
) -> None:
    source = synthetic_dataset(layout)
    whole = open_dataset(str(source))
    ids = min(2, len(people(whole.query)))
    make(source, tmp_path / "part", ids=ids, images=images)
    manifest, folder = locate(str(tmp_path / "part"))
    part = read_dataset(manifest, folder)
    assert all(check.passed for check in verify(manifest, part))
    assert (part.task, part.protocol, part.dense) == (whole.task, whole.protocol, whole.dense)
    assert part.synthetic and len(people(part.train)) == ids == len(people(part.query))
    assert not unmatched_queries(part)
    for split in SPLITS:
        items = getattr(part, split)
        assert {i.path for i in items} <= {i.path for i in getattr(whole, split)}
        for pid in people(items):
            count = sum(item.pid == pid for item in items)
            assert images is None or count <= images
    if images is None:
        kept = people(part.query)
        assert [i.path for i in part.gallery if i.pid in kept] == [
            i.path for i in whole.gallery if i.pid in kept
        ]
    roles = {item.role for item in whole.gallery}
    assert {item.role for item in part.gallery} == roles
    assert (part.labels is None) == (whole.labels is None)


def test_images_are_linked_not_copied(market: Path, tmp_path: Path) -> None:
    kinds = make(market, tmp_path / "part")
    data = open_dataset(str(tmp_path / "part"))
    for sample in frames((*data.train, *data.gallery)):
        assert (data.root / sample.path).samefile(market / sample.path)
    assert list(kinds) == ["hard link"]


def test_where_links_are_impossible_files_are_copied(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert list(make(market, tmp_path / "symbolic")) == ["symbolic link"]
    open_dataset(str(tmp_path / "symbolic"))
    monkeypatch.setattr(os, "symlink", refuse)
    assert list(make(market, tmp_path / "copies")) == ["copy"]
    image = next((tmp_path / "copies/query").iterdir())
    assert not image.is_symlink() and image.stat().st_nlink == 1


def test_a_subset_of_linked_images_does_not_depend_on_the_links(
    market: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    (linked / "deep").mkdir(parents=True)
    for item in market.iterdir():
        (linked / item.name).symlink_to(os.path.relpath(item, linked))
    make(linked, tmp_path / "elsewhere/part")
    data = open_dataset(str(tmp_path / "elsewhere/part"))
    assert all((data.root / s.path).stat().st_size for s in frames(data.train))


def test_the_seed_determines_the_subset(market: Path) -> None:
    whole = open_dataset(str(market))

    def paths(seed: int) -> list[str]:
        part = select_subset(whole, ids=2, images=2, seed=seed)
        return [s.path for s in frames((*part.train, *part.query, *part.gallery))]

    assert paths(1) == paths(1)
    assert len({tuple(paths(seed)) for seed in range(5)}) > 1


def test_images_are_spread_over_cameras(market: Path) -> None:
    whole = open_dataset(str(market))
    part = select_subset(whole, ids=3, images=2)
    for pid in people(part.train):
        cameras = {item.camid for item in whole.train if item.pid == pid}
        assert len({i.camid for i in part.train if i.pid == pid}) == min(2, len(cameras))


def test_more_identities_than_there_are_and_full_folders_are_refused(
    market: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"has 6 training identities, 7 .* at most --ids 6"):
        make(market, tmp_path / "part", ids=7)
    with pytest.raises(DataError, match="has 5 test identities with a match"):
        make(market, tmp_path / "part", ids=6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(DataError, match="is not an empty folder"):
        make(market, tmp_path / "full")


def test_an_interrupted_subset_leaves_no_folder(market: Path, tmp_path: Path) -> None:
    manifest, folder = locate(str(market))
    part: Dataset = select_subset(read_dataset(manifest, folder), ids=2)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_subset(tmp_path / "part", part, manifest, name="a", title="", on_progress=interrupt)
    assert not list(tmp_path.iterdir())
    (tmp_path / "part.partial/query").mkdir(parents=True)  # as after a kill
    make(market, tmp_path / "part")
    open_dataset(str(tmp_path / "part"))
