"""The synthetic Market-1501: its files, reproducibility, and errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError, ReidkitError
from reidkit.synthetic import LAYOUTS

write_market1501 = LAYOUTS["market1501"]

NAME = re.compile(r"(-1|\d{4})_c[1-6]s[1-6]_\d{6}_\d{2}\.jpg")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four training and three test identities."""
    root = tmp_path_factory.mktemp("synth") / "market"
    write_market1501(root, train_pids=4, test_pids=3, seed=7, workers=1)
    return root


def pids_in(folder: Path) -> list[str]:
    return [path.name.partition("_")[0] for path in sorted(folder.iterdir())]


def test_file_names_are_those_of_market_1501(root: Path) -> None:
    for folder in FOLDERS:
        for path in (root / folder).iterdir():
            assert NAME.fullmatch(path.name), path.name


def test_the_manifest_has_the_counts_of_the_files(root: Path) -> None:
    manifest = tomllib.loads((root / "manifest.toml").read_text())
    assert manifest["synthetic"] and manifest["seed"] == 7 and manifest["cameras"] == 6
    for split in manifest["splits"].values():
        pids = pids_in(root / split["folder"])
        people = set(pids) - {"-1", "0000"}
        assert (split["images"], split["ids"]) == (len(pids), len(people))
        assert split.get("junk", 0) == pids.count("-1")
        assert split.get("distractors", 0) == pids.count("0000")
    assert manifest["splits"]["gallery"]["junk"] and manifest["splits"]["gallery"]["distractors"]


def test_the_manifests_pattern_matches_every_file_name(root: Path) -> None:
    pattern = re.compile(tomllib.loads((root / "manifest.toml").read_text())["pattern"])
    for folder in FOLDERS:
        assert all(pattern.fullmatch(path.name) for path in (root / folder).iterdir())


def test_training_and_test_identities_are_disjoint(root: Path) -> None:
    train, query, gallery = (set(pids_in(root / folder)) for folder in FOLDERS)
    assert len(train) == 4 and len(query) == 3
    assert gallery - {"-1", "0000"} == query
    assert not train & query


def test_every_query_has_a_match_in_another_camera(root: Path) -> None:
    gallery = [path.name[:6] + path.name[6] for path in (root / "bounding_box_test").iterdir()]
    for path in (root / "query").iterdir():
        pid, camera = path.name[:4], path.name[6]
        assert any(name[:4] == pid and name[6] != camera for name in gallery)


def test_each_image_has_a_label_map_of_its_size(root: Path) -> None:
    for folder in FOLDERS:
        for path in (root / folder).iterdir():
            with (
                Image.open(path) as image,
                Image.open(root / "labels" / folder / f"{path.stem}.png") as labels,
            ):
                assert image.format == "JPEG" and image.mode == "RGB"
                assert labels.format == "PNG" and labels.mode == "L"
                assert image.size == labels.size == (64, 128)
                assert np.asarray(labels).max() <= 19
    assert len(list(root.rglob("*.png"))) == len(list(root.rglob("*.jpg")))


def test_people_cover_a_realistic_part_of_their_label_maps(root: Path) -> None:
    shares = [
        np.count_nonzero(np.asarray(Image.open(path))) / (64 * 128)
        for path in (root / "labels" / "query").iterdir()
    ]
    assert np.median(shares) > 0.12


def test_files_depend_on_the_seed_and_not_on_the_number_of_workers(
    root: Path, tmp_path: Path
) -> None:
    write_market1501(tmp_path / "two", train_pids=4, test_pids=3, seed=7, workers=2)
    assert files_of(tmp_path / "two") == files_of(root)


def test_another_seed_gives_other_images(root: Path, tmp_path: Path) -> None:
    write_market1501(tmp_path / "other", train_pids=4, test_pids=3, seed=8, workers=1)
    same = set(files_of(tmp_path / "other").values()) & set(files_of(root).values())
    assert not {data for data in same if data.startswith(b"\xff\xd8")}  # JPEG


def test_progress_counts_images_up_to_their_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_market1501(
        tmp_path / "m", train_pids=1, test_pids=1, seed=0, workers=1,
        on_progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls == sorted(calls)
    assert calls[-1] == (len(list(tmp_path.rglob("*.jpg"))),) * 2


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match=r"not empty \(found mine\.txt\)"):
        write_market1501(tmp_path, train_pids=1, test_pids=1, seed=0)
    assert files_of(tmp_path) == {"mine.txt": b"precious"}


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "m.partial" / "query"
    leftover.mkdir(parents=True)
    (leftover / "0001_c1s1_000001_00.jpg").write_bytes(b"half")
    write_market1501(tmp_path / "m", train_pids=1, test_pids=1, seed=0, workers=1)
    assert not (tmp_path / "m.partial").exists()
    assert b"half" not in files_of(tmp_path / "m").values()


@pytest.mark.parametrize(
    ("train", "test", "seed"), [(0, 1, 0), (1, 0, 0), (8000, 2000, 0), (1, 1, -1)]
)
def test_invalid_numbers_are_refused(tmp_path: Path, train: int, test: int, seed: int) -> None:
    with pytest.raises(DataError, match="expected"):
        write_market1501(tmp_path / "m", train_pids=train, test_pids=test, seed=seed)
    assert not (tmp_path / "m").exists()


def test_a_full_disk_is_a_data_error_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")  # the error of write() does not name the file

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"\.jpg: cannot write: No space left on device"):
        write_market1501(tmp_path / "m", train_pids=1, test_pids=1, seed=0, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_a_data_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ReidkitError, match="cannot write: Permission denied"):
        write_market1501(tmp_path / "m", train_pids=1, test_pids=1, seed=0, workers=1)
    tmp_path.chmod(0o700)


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(DataError, match="is a file, expected a new or empty folder"):
        write_market1501(tmp_path / "m", train_pids=1, test_pids=1, seed=0)


KILLED = """
import sys
from pathlib import Path
from reidkit.synthetic import LAYOUTS
if __name__ == "__main__":
    LAYOUTS["market1501"](
        Path(sys.argv[1]), train_pids=300, test_pids=1, seed=0, workers=2,
        on_progress=lambda done, total: print(done, flush=True),
    )
"""


def test_a_killed_run_leaves_no_manifest_and_no_process(tmp_path: Path) -> None:
    script = tmp_path / "write.py"
    script.write_text(KILLED)
    repository = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "m")],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout is not None
    assert run.stdout.readline()  # the first batch is written
    run.kill()
    run.communicate(timeout=60)  # returns when the last process with the pipe has ended
    assert not (tmp_path / "m").exists() and (tmp_path / "m.partial").is_dir()
