"""Custom data sets: a CSV, a folder per person, untrusted archives."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from reidkit.data.archives import extract_archive
from reidkit.data.manifest import find_manifest, open_dataset
from reidkit.data.names import NamePattern, parse_camera_map
from reidkit.data.scaffold import Scaffold, plan_dataset
from reidkit.data.statistics import measure
from reidkit.errors import ConfigError, DataError, ReidkitError
from reidkit.types import Sample, Tracklet

MANIFEST = 'format = 1\nname = "mine"\nreader = "csv"\ncameras = {}\nprotocol = "{}"\n'
SPLITS = "[splits.train]\n[splits.query]\n[splits.gallery]\n"
HEAD = "split,path,pid,camid,tracklet,frame\n"


def write(
    root: Path, lines: str, *, head: str = HEAD, cameras: str = "12", files: bool = True
) -> Path:
    protocol = "none" if cameras == '"none"' else "market"
    (root / "manifest.toml").write_text(MANIFEST.format(cameras, protocol) + SPLITS)
    (root / "data.csv").write_text(head + lines)
    for line in lines.splitlines() if files else ():
        path = root / line.split(",")[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


GOOD = """train,a/deep/er/1.jpg,Ann,north gate,,
train,a/2.jpg,Ann,12,,
query,b/1.jpg,Bob,10,,
gallery,b/2.jpg,Bob,11,walk 1,2
gallery,b/3.jpg,Bob,11,walk 1,1
gallery,c/1.jpg,Cleo,11,,
"""


def test_a_csv_may_have_text_ids_nested_folders_and_tracklets_among_images(tmp_path: Path) -> None:
    data = open_dataset(str(write(tmp_path, GOOD)))
    assert [item.pid for item in data.train] == [0, 0] and len({i.camid for i in data.train}) == 2
    single, walk = sorted(data.gallery, key=lambda item: isinstance(item, Tracklet))
    assert isinstance(single, Sample) and single.path == "c/1.jpg"
    assert isinstance(walk, Tracklet)
    assert [frame.path for frame in walk.frames] == ["b/3.jpg", "b/2.jpg"]
    assert walk.pid == data.query[0].pid != single.pid


def test_a_csv_without_cameras_needs_cameras_none(tmp_path: Path) -> None:
    lines = "train,a.jpg,1\nquery,b.jpg,2\ngallery,c.jpg,2\n"
    head = "split,path,pid\n"
    with pytest.raises(DataError, match=r'has no column camid.*set cameras = "none"'):
        open_dataset(str(write(tmp_path, lines, head=head)))
    data = open_dataset(str(write(tmp_path, lines, head=head, cameras='"none"')))
    assert data.protocol == "none" and {item.camid for item in data.query} == {0}
    text = (
        (tmp_path / "manifest.toml").read_text().replace('protocol = "none"', 'protocol = "mars"')
    )
    (tmp_path / "manifest.toml").write_text(text)
    with pytest.raises(DataError, match="does not fit protocol"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            GOOD + "train,a/2.jpg,Ann,12,,\n",
            r"\[train\] 1 images occur more than once, the first is a/2",
        ),
        (GOOD + "train,b/1.jpg,Bob,12,,\n", "1 images are in both train and query"),
        (GOOD + "query,d.jpg,Dan,3,,\n", "1 of 2 queries have no match .* another camera"),
        (GOOD + "query,d.jpg,Bob,11,,\n", "1 of 2 queries have no match"),
        (GOOD + "gallery,b/4.jpg,Cleo,11,walk 1,3\n", None),
        (GOOD + "valid,d.jpg,Dan,3,,\n", "line 8: expected a split"),
        (GOOD + "train,../d.jpg,Dan,3,,\n", "1 paths .* point outside"),
    ],
)
def test_errors_in_a_csv_are_reported(tmp_path: Path, lines: str, message: str | None) -> None:
    (tmp_path / "data").mkdir()
    root = write(tmp_path / "data", lines)
    if message is None:  # two persons' tracklets may have the same name
        assert sum(isinstance(item, Tracklet) for item in open_dataset(str(root)).gallery) == 2
        return
    with pytest.raises(DataError, match=message):
        open_dataset(str(root))


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    root = write(tmp_path, GOOD + "valid,d.jpg,Dan,3,,\nquery,/etc/e.jpg,E,1,,\n", files=False)
    with pytest.raises(DataError, match="mine: 3 problems") as caught:
        open_dataset(str(root))
    assert caught.match("6 images .* are missing, the first is a/deep/er/1.jpg")


def save_images(root: Path, names: list[str], *, shade: int = 0) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8), (shade, number, 0)).save(root / name)


def init(folder: Path, pattern: str = "", **options: object) -> Scaffold:
    names = NamePattern(pattern, **options)  # type: ignore[arg-type]
    scaffold = plan_dataset(folder, names)
    scaffold.write()
    return scaffold


def test_init_creates_a_data_set_from_a_folder_per_person(tmp_path: Path) -> None:
    names = [f"{who}/cam{cam}_{n}.png" for who in "ABCD" for cam in (1, 2) for n in (0, 1)]
    save_images(tmp_path, names)
    with pytest.raises(DataError, match="datasets init"):
        find_manifest(str(tmp_path))
    init(tmp_path, cameras=r"cam(\d+)")
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.query), len(data.gallery)) == (8, 4, 4)
    assert data.protocol == "market"
    with pytest.raises(DataError, match="already"):
        init(tmp_path, cameras="none")


def test_init_without_cameras_and_with_tracklets(tmp_path: Path) -> None:
    save_images(tmp_path / "one", [f"{who}/{n}.png" for who in "AB" for n in range(3)])
    init(tmp_path / "one", cameras="none")
    data = open_dataset(str(tmp_path / "one"))
    assert (len(data.train), len(data.query), len(data.gallery)) == (3, 1, 2)
    names = [f"{who}/walk{w}/{n}.png" for who in "AB" for w in (1, 2) for n in range(3)]
    save_images(tmp_path / "two", names)
    init(tmp_path / "two", cameras="none", tracklets=True)
    data = open_dataset(str(tmp_path / "two"))
    sizes = [len(t.frames) for t in (*data.train, *data.query, *data.gallery)]  # type: ignore[union-attr]
    assert sizes == [3, 3, 3, 3] and len(data.query) == 1


def test_the_name_of_a_data_set_is_that_of_its_folder_in_any_alphabet(tmp_path: Path) -> None:
    for folder, name in (("Фото 2024", "Фото-2024"), ("写真", "写真"), ("!!", "mine")):
        save_images(tmp_path / folder, ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"])
        plan_dataset(tmp_path / folder, NamePattern()).write()
        assert open_dataset(str(tmp_path / folder)).name == name


def test_init_with_one_image_per_camera_still_selects_a_query(tmp_path: Path) -> None:
    save_images(tmp_path, [f"{who}/cam{cam}.png" for who in "AB" for cam in (1, 2, 3)])
    init(tmp_path, cameras=r"cam(\d)")
    data = open_dataset(str(tmp_path))
    assert (len(data.train), len(data.query), len(data.gallery)) == (3, 1, 2)
    save_images(tmp_path / "alone", ["A/cam1.png", "A/cam1_b.png", "B/cam1.png", "B/cam1_b.png"])
    with pytest.raises(DataError, match="there are no queries"):
        init(tmp_path / "alone", cameras=r"cam(\d)")


def test_init_names_the_image_without_camera_or_person(tmp_path: Path) -> None:
    save_images(tmp_path, ["A/left.png"])
    with pytest.raises(DataError, match=r"no camera in 1 of 1 images, the first is A/left\.png"):
        init(tmp_path, cameras=r"cam(\d)")
    save_images(tmp_path, ["stray.png"])
    with pytest.raises(DataError, match="is not in a person's folder"):
        init(tmp_path, cameras="none")


CUHK01 = r"^(?P<pid>\d{4})(?P<camid>\d{3})\."
CAMERAS = "1=1,2=1,3=2,4=2"


def save_cuhk01(root: Path, people: int = 4) -> None:
    save_images(root, [f"{p:04d}{n:03d}.png" for p in range(1, people + 1) for n in (1, 2, 3, 4)])


def test_a_flat_folder_is_read_by_a_pattern_and_a_camera_map(tmp_path: Path) -> None:
    save_cuhk01(tmp_path / "campus")
    scaffold = init(tmp_path / "campus", CUHK01, camera_map=parse_camera_map(CAMERAS))
    assert scaffold.counts() == (4, 16, 2) and not scaffold.warnings
    data = open_dataset(str(tmp_path / "campus"))
    assert (len(data.train), len(data.query), len(data.gallery)) == (8, 4, 4)
    for item in (*data.train, *data.query, *data.gallery):
        number = int(item.path[4:7])
        assert item.pid == int(item.path[:4]) and item.camid == (1 if number < 3 else 2)
    assert sorted(int(item.path[4:7]) for item in data.query) == [1, 1, 3, 3]


def test_a_folder_that_looks_like_one_person_is_warned_about_with_the_command(
    tmp_path: Path,
) -> None:
    save_cuhk01(tmp_path / "cuhk/campus")
    scaffold = plan_dataset(tmp_path / "cuhk", NamePattern())
    assert scaffold.counts()[0] == 1
    assert "all 16 images are of one person, campus" in scaffold.warnings[0]
    assert f"--pattern '{CUHK01}' --camera-map {CAMERAS}" in scaffold.warnings[0]
    assert "no training split" in scaffold.warnings[1]
    with pytest.raises(DataError, match=r"names look like CUHK01's, of 4 people\. Run: reidkit"):
        plan_dataset(tmp_path / "cuhk/campus", NamePattern())

    names = [f"cam_{c}/{p:03d}_{a}.png" for c, a in (("a", 0), ("b", 90)) for p in range(3)]
    save_images(tmp_path / "viper", names)
    (warning, *_) = plan_dataset(tmp_path / "viper", NamePattern()).warnings
    assert "the folders are of 2 people. The names look like VIPeR's, of 3 people" in warning


def test_a_folder_per_person_is_not_warned_about(tmp_path: Path) -> None:
    save_images(tmp_path, [f"{p:04d}/{p:04d}_c{c}_1.png" for p in range(4) for c in (1, 2)])
    assert plan_dataset(tmp_path, NamePattern(cameras=r"_c(\d)")).warnings == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pattern": r"(?P<pid>\d)_c(?P<cam>\d)"},
            "has the group cam; the groups are pid and camid",
        ),
        ({"pattern": r"\d{4}"}, r"has no group pid.*'\(\?P<pid>"),
        ({"pattern": r"(?P<pid>\d{4}"}, "is not a regular expression"),
        ({"cameras": r"cam\d"}, "has 0 groups, expected one"),
        ({"pattern": CUHK01, "cameras": r"(\d)"}, "remove --cameras"),
        ({"camera_map": {"1": "1"}}, "--camera-map needs cameras"),
    ],
)
def test_contradictory_expressions_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NamePattern(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1", "1=", "=2", "1=1,01=2", "1=1,,2=2"])
def test_a_malformed_camera_map_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected CAPTURED=CAMERA pairs"):
        parse_camera_map(text)


def test_images_that_do_not_match_are_counted(tmp_path: Path) -> None:
    save_cuhk01(tmp_path)
    save_images(tmp_path, ["notes.png"])
    with pytest.raises(DataError, match=r"not match 1 of 17 images, the first is notes\.png"):
        plan_dataset(tmp_path, NamePattern(CUHK01))
    (tmp_path / "notes.png").unlink()
    with pytest.raises(DataError, match="does not contain the camera of 8 of 16 images"):
        plan_dataset(tmp_path, NamePattern(CUHK01, camera_map={"1": "1", "2": "1"}))
    save_images(tmp_path, ["train/0009001.png"])
    with pytest.raises(DataError, match=r"16 images .* are not in its folders train, query"):
        plan_dataset(tmp_path, NamePattern(CUHK01))


@pytest.mark.parametrize(
    ("fraction", "people"),
    [(0, (10, 0)), (0.3, (7, 3)), (0.5, (5, 5)), (0.99, (1, 9)), (1, (0, 10))],
)
def test_whole_people_are_for_testing(
    tmp_path: Path, fraction: float, people: tuple[int, int]
) -> None:
    save_cuhk01(tmp_path, people=10)
    names = NamePattern(CUHK01, camera_map=parse_camera_map(CAMERAS))
    scaffold = plan_dataset(tmp_path, names, test_fraction=fraction, seed=3)
    assert (scaffold.counts("train")[0], scaffold.counts("query")[0]) == people
    assert plan_dataset(tmp_path, names, test_fraction=fraction, seed=3) == scaffold
    splits = {row.pid: set[str]() for row in scaffold.rows}
    for row in scaffold.rows:
        splits[row.pid].add(row.split)
    assert all(found in ({"train"}, {"query", "gallery"}) for found in splits.values())
    has_warning = any("no training split" in text for text in scaffold.warnings)
    assert has_warning == (fraction == 1)


def test_a_killed_init_is_completed_by_the_same_command(tmp_path: Path) -> None:
    save_cuhk01(tmp_path)
    complete = init(tmp_path, CUHK01)
    (tmp_path / "manifest.toml").unlink()  # as after a kill between the two files
    init(tmp_path, CUHK01)
    open_dataset(str(tmp_path))
    (tmp_path / "manifest.toml").unlink()
    (tmp_path / "data.csv").write_text("my own table")
    with pytest.raises(DataError, match=r"already has another data\.csv"):
        complete.write()
    assert (tmp_path / "data.csv").read_text() == "my own table"


def test_init_on_a_full_disk_keeps_the_manifest_and_table_that_it_would_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cuhk01(tmp_path)
    plan = init(tmp_path, CUHK01)
    for name in ("manifest.toml", "data.csv"):
        (tmp_path / name).write_text("old")
    write_text = Path.write_text

    def full(path: Path, text: str, *options: object, **more: object) -> int:
        if path.name.startswith("data.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text, *options, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ReidkitError, match=r"data\.csv: No space left on device"):
        plan.write(overwrite=True)
    assert [(tmp_path / name).read_text() for name in ("manifest.toml", "data.csv")] == ["old"] * 2
    assert not list(tmp_path.glob("*.partial"))


def test_a_table_may_name_the_root_of_its_images_and_hold_absolute_paths(tmp_path: Path) -> None:
    images, tables = tmp_path / "images", tmp_path / "tables"
    tables.mkdir()
    lines = "".join(
        f"{split},{name},{pid},{camid},,\n"
        for split, name, pid, camid in (
            ("train", "a/1.png", "Ann", 1),
            ("query", images / "b/1.png", "Bob", 1),
            ("gallery", images / "b/2.png", "Bob", 2),
        )
    )
    write(tables, lines, files=False, cameras="2")
    save_images(images, ["a/1.png", "b/1.png", "b/2.png"])
    with pytest.raises(DataError, match=r'2 paths .* point outside .*Set root = "FOLDER"'):
        open_dataset(str(tables))
    manifest = (tables / "manifest.toml").read_text()
    fingerprints = set()
    for root in (str(images), "../images"):
        (tables / "manifest.toml").write_text(f'root = "{root}"\n{manifest}')
        data = open_dataset(str(tables))
        assert [item.path for item in (*data.train, *data.query)] == ["a/1.png", "b/1.png"]
        assert (data.root / data.query[0].path).is_file() and data.folder == tables
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 1
    (tables / "manifest.toml").write_text(f'root = "absent"\n{manifest}')
    with pytest.raises(DataError, match=r'has root = "absent", and .* is not a folder'):
        open_dataset(str(tables))


def test_stats_find_files_shared_by_train_and_test(tmp_path: Path) -> None:
    lines = "train,a.png,1,1,,\ntrain,b.png,1,2,,\nquery,c.png,2,1,,\ngallery,d.png,2,2,,\n"
    write(tmp_path, lines, cameras="2")
    save_images(tmp_path, ["a.png", "b.png"])
    save_images(tmp_path, ["c.png"])  # the same pixels as a.png
    save_images(tmp_path, ["d.png"], shade=9)
    found = measure(open_dataset(str(tmp_path)))
    assert found.duplicates == [["a.png", "c.png"]]
    assert found.images["train"] == {1: 1, 2: 1} and found.ids["query"] == {1: 1}
    assert (found.heights.min, found.widths.max) == (8, 4)


def archive(path: Path, member: str, *, link: bool = False) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("good.txt", "fine")
            zipped.writestr(member, "x")
    else:
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo(member)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = 0 if link else 1
            tar.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize("member", ["../evil.txt", "/tmp/evil.txt", "in/../../evil.txt"])
def test_an_archive_with_members_outside_the_target_is_refused_before_unpacking(
    tmp_path: Path, kind: str, member: str
) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match=r"points outside .*Nothing was unpacked"):
        extract_archive(archive(tmp_path / kind, member), tmp_path / "target", on_progress=print)
    assert list((tmp_path / "target").iterdir()) == []
    assert not (tmp_path / "evil.txt").exists()


def test_links_and_broken_archives_are_refused_and_valid_ones_unpacked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a link or a device"):
        extract_archive(
            archive(tmp_path / "l.tar", "passwd", link=True), tmp_path, on_progress=print
        )
    (tmp_path / "no.zip").write_bytes(b"nothing")
    with pytest.raises(DataError, match="is not a zip or tar file"):
        extract_archive(tmp_path / "no.zip", tmp_path, on_progress=print)
    extract_archive(archive(tmp_path / "a.zip", "in/b.txt"), tmp_path / "t", on_progress=print)
    assert (tmp_path / "t/in/b.txt").read_text() == "x"
