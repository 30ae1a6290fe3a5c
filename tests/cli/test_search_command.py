"""`reidkit search`, `index` and `visualize ranks` as a user types them."""

import csv
import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_onnx import write_mean_channels
from typer.models import ArgumentInfo

from reidkit.cli import index as index_command
from reidkit.cli import search as search_command
from reidkit.index import approximate
from reidkit.index.records import DATABASE

Run = Callable[..., str]

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "ranked-lists.png"


@pytest.fixture
def model(trained: Path) -> Path:
    return trained / "runs" / "one" / "model.safetensors"


@pytest.fixture
def photos(market: Path, tmp_path: Path) -> Path:
    """Twelve gallery images in a folder with a strange name."""
    folder = tmp_path / "Fotos & more ü"
    folder.mkdir()
    for file in sorted((market / "bounding_box_test").glob("*.jpg"))[:12]:
        shutil.copy(file, folder)
    return folder


def test_a_picture_is_found_in_a_folder_and_leaves_itself_out_on_request(
    run: Run, model: Path, photos: Path
) -> None:
    who = sorted(photos.iterdir())[3]
    (found,) = json.loads(run("search", model, "--query", who, "--gallery", photos, "--json"))
    assert found["hits"][0]["path"] == str(who)
    assert found["hits"][0]["distance"] == pytest.approx(0, abs=1e-5)
    assert len(found["hits"]) == 10
    arguments = ("search", model, "--query", who, "--gallery", photos, "--exclude-self", "--json")
    (other,) = json.loads(run(*arguments, "--top", 3))
    assert [hit["path"] for hit in other["hits"]] == [h["path"] for h in found["hits"][1:4]]
    bound = found["hits"][4]["distance"] + 1e-7
    (near,) = json.loads(run(*arguments, "--threshold", bound))
    assert len(near["hits"]) == 4


def test_a_name_cannot_break_lines_pictures_or_the_terminal(
    run: Run, model: Path, photos: Path
) -> None:
    who = sorted(photos.iterdir())[3]
    shutil.copy(who, photos / "line\nbreak\x1b[31m.jpg")
    found = run(
        *("search", model, "--query", who, "--gallery", photos, "--top", 2),
        *("--png", "found.png", "--html", "found.html"),
    )
    assert "line\\x0abreak\\x1b[31m.jpg" in found and "\x1b" not in found
    assert len(found.splitlines()) == 3
    assert Path("found.png").stat().st_size and Path("found.html").stat().st_size


def test_a_name_that_is_not_utf_8_is_refused_by_name(
    refuse: Run, model: Path, photos: Path
) -> None:
    who = sorted(photos.iterdir())[3]
    shutil.copy(who, os.fsencode(photos) + b"/bad\xff.jpg")
    message = refuse("index", "build", "p.index", photos, "--model", model)
    assert "'bad\\udcff.jpg' is not UTF-8" in message
    assert not Path("p.index").exists()


def test_an_index_gives_the_lists_of_its_folder(run: Run, model: Path, photos: Path) -> None:
    who = sorted(photos.iterdir())[3]
    first = run("index", "build", "p.index", photos, "--model", model)
    assert first.startswith("p.index: 12 added, 0 already there, 12 vectors")
    assert "0 added, 12 already there" in run("index", "add", "p.index", photos)
    (direct,) = json.loads(run("search", model, "--query", who, "--gallery", photos, "--json"))
    (kept,) = json.loads(run("search", "--query", who, "--gallery", "p.index", "--json"))
    assert [h["path"] for h in kept["hits"]] == [str(Path(h["path"])) for h in direct["hits"]]
    for a, b in zip(kept["hits"], direct["hits"], strict=True):
        assert a["distance"] == pytest.approx(b["distance"], abs=1e-5)
    assert f"removed, {11} vectors" in run("index", "remove", "p.index", who)
    (rest,) = json.loads(run("search", "--query", who, "--gallery", "p.index", "--json"))
    assert [h["path"] for h in rest["hits"]][:9] == [h["path"] for h in kept["hits"][1:]]
    assert json.loads(run("index", "info", "p.index", "--json"))["vectors"] == 11
    assert "11 removed" in run("index", "expire", "p.index", "--before", "2100-01-01")


def test_features_are_added_to_an_index_and_found_by_an_approximate_search(
    run: Run,
    refuse: Run,
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for file in sorted(photos.iterdir())[8:]:
        file.rename(more / file.name)
    build = ("index", "build", "p.index", photos, "--model", model)
    few = "p.index: at most 8 vectors, and exact search is faster below 1,000"
    assert few in refuse(*build, "--approximate", "ivf") and not Path("p.index").exists()
    run(*build)
    assert "at most 12 vectors" in refuse("index", "add", "p.index", more, "--approximate", "ivf")
    assert json.loads(run("index", "info", "p.index", "--json"))["vectors"] == 8
    monkeypatch.setattr(approximate, "MIN_VECTORS", 10)
    run("extract", model, "--images", more, "-o", "more.h5", "--device", "cpu")
    arguments = ("index", "add", "p.index", "--features", "more.h5", "--approximate", "hnsw")
    found = json.loads(run(*arguments, "--json"))
    assert (found["vectors"], found["added"], found["skipped"]) == (12, 4, 0)
    assert found["approximate"]["kind"] == "hnsw" and found["approximate"]["recall"] > 0.9
    assert "hnsw, recall at 10" in run("index", "info", "p.index")
    who = sorted(more.iterdir())[0]
    (found,) = json.loads(run("search", "--query", who, "--gallery", "p.index", "--json"))
    assert found["hits"][0]["path"] == str(who)
    removed = json.loads(run("index", "remove", "p.index", who, "--json"))
    assert (removed["vectors"], removed["removed"]) == (11, 1)


def test_an_index_of_features_remembers_the_model_that_is_named(
    run: Run, refuse: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    run("extract", model, "--images", photos, "-o", "photos.h5", "--device", "cpu")
    build = ("index", "build", "p.index", "--features", "photos.h5", "--model")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another")
    assert "not the model that photos.h5 was built with" in refuse(*build, other)
    run(*build, model)
    who = sorted(photos.iterdir())[0]
    (found,) = json.loads(run("search", "--query", who, "--gallery", "p.index", "--json"))
    assert found["hits"][0]["path"] == str(who)


def test_metadata_gives_person_camera_and_time_to_search_by(
    run: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    names = sorted(file.name for file in photos.iterdir())
    with (photos / "facts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "person", "camera", "time"])
        table.writerows(
            (name, f"P{k}", k % 2, f"2026-01-{k + 1:02}") for k, name in enumerate(names)
        )
    build = ("index", "build", "p.index", photos, "--model", model)
    run(*build, "--metadata", photos / "facts.csv")
    search = ("search", "--query", photos / names[0], "--gallery", "p.index", "--json")
    (found,) = json.loads(run(*search, "--camera", 1, "--after", "2026-01-03"))
    assert {hit["camera"] for hit in found["hits"]} == {1}
    assert {hit["person"] for hit in found["hits"]} == {"P3", "P5", "P7", "P9", "P11"}
    (found,) = json.loads(run(*search, "--person", "P2", "--person", "P4"))
    assert {hit["person"] for hit in found["hits"]} == {"P2", "P4"}


def test_an_index_lists_its_images_with_their_facts(run: Run, model: Path, photos: Path) -> None:
    names = sorted(file.name for file in photos.iterdir())
    rows = [f"{name},P{k},{k % 2},2026-01-{k + 1:02}" for k, name in enumerate(names)]
    Path("facts.csv").write_text("\n".join(["path,person,camera,time", *rows]))
    Path("facts.csv").rename(photos / "facts.csv")
    build = ("index", "build", "p.index", photos, "--model", model)
    run(*build, "--metadata", photos / "facts.csv")
    lines = run("index", "list", "p.index", "--camera", 1, "--limit", 2).splitlines()
    assert lines[0].split() == ["camera", "person", "time", "path"]
    assert lines[1].split(maxsplit=3) == ["1", "P1", "2026-01-02T00:00:00Z", str(photos / names[1])]
    assert lines[-1] == "2 of 6 entries. Show all of them with --limit 0" and len(lines) == 4
    found = json.loads(run("index", "list", "p.index", "--person", "P3", "--json"))
    (record,) = found["records"]
    assert found["matching"] == 1
    assert record == {
        **{"path": str(photos / names[3]), "person": "P3", "camera": 1},
        "time": 1767484800.0,  # 2026-01-04
    }
    assert run("index", "list", "p.index", "--camera", 7) == "0 of 0 entries\n"


def test_adding_images_again_says_that_their_facts_are_unchanged(
    run: Run, model: Path, photos: Path
) -> None:
    run("index", "build", "p.index", photos, "--model", model, "--camera", 1)
    assert "unchanged" not in run("index", "add", "p.index", photos)
    assert "camera and time of the 12 are unchanged" in run(
        "index", "add", "p.index", photos, "--camera", 2
    )
    assert "0 of 0 entries" in run("index", "list", "p.index", "--camera", 2)


def test_features_files_are_searched_without_a_model(
    run: Run, refuse: Run, model: Path, market: Path, tmp_path: Path
) -> None:
    for split in ("query", "gallery"):
        run("extract", model, "--dataset", market, "--split", split, "-o", f"{split}.h5")
    plain = json.loads(run("search", "--query", "query.h5", "--gallery", "gallery.h5", "--json"))
    reranked = json.loads(
        run("search", "--query", "query.h5", "--gallery", "gallery.h5", "--rerank", "--json")
    )
    assert len(plain) == len(reranked) and plain != reranked
    run("index", "build", "g.index", "--features", "gallery.h5")
    kept = json.loads(run("search", "--query", "query.h5", "--gallery", "g.index", "--json"))
    assert len(kept) == len(plain)
    person = plain[0]["hits"][0]["person"]
    for gallery in ("gallery.h5", "g.index"):
        arguments = ("--query", "query.h5", "--gallery", gallery, "--person", person, "--json")
        (first, *_) = json.loads(run("search", *arguments))
        assert {hit["person"] for hit in first["hits"]} == {person}
    run(
        *("search", "--query", "query.h5", "--gallery", "gallery.h5", "--images-root", market),
        *("--png", "q.png", "--html", "q.html", "--csv", "q.csv", "--top", 3),
    )
    with Image.open("q.png") as picture:
        assert picture.height > 200
    assert "data:image/jpeg" in Path("q.html").read_text()
    arguments = ("search", "--query", "query.h5", "--gallery", "gallery.h5", "--csv", "q.csv")
    assert "q.csv exists. Add --overwrite" in refuse(*arguments)
    with Path("q.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 3 * len(plain) and rows[0]["rank"] == "1"


def test_unlabelled_features_are_searched_and_never_evaluated(
    run: Run, refuse: Run, model: Path, photos: Path
) -> None:
    run("extract", model, "--images", photos, "-o", "p.h5")
    error = refuse("eval", "--query-features", "p.h5", "--gallery-features", "p.h5")
    assert "p.h5: all identities are -1" in error and "reidkit search" in error


def test_failures_list_the_worst_queries_first_with_paths(
    run: Run, model: Path, market: Path
) -> None:
    run("eval", model, "--dataset", market, "--failures", "failures.csv", "-o", "out")
    with Path("failures.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    aps = [float(row["ap"]) for row in rows]
    assert aps == sorted(aps) and len(rows) > 3
    for row in rows:
        assert (market / row["query"]).is_file() and (market / row["match"]).is_file()
        in_front = float(row["wrong_distance"]) < float(row["match_distance"])
        assert in_front == (int(row["first_rank"]) > 1)


def test_ranked_lists_of_the_worst_queries_are_shown(
    run: Run, refuse: Run, model: Path, market: Path
) -> None:
    page = ("--html", "r.html")
    text = run("visualize", "ranks", model, "--dataset", market, "--worst", 2, *page)
    assert "mAP" in text and "ranks.png" in text
    assert Path("r.html").read_text().count("<section") == 2
    query = sorted((market / "query").glob("*.jpg"))[0].name
    message = refuse("visualize", "ranks", model, "--dataset", market, "--png", "new.png", *page)
    assert (
        message == "error: r.html exists. Add --overwrite to replace it, or choose another name\n"
    )
    again = ("--overwrite",)
    document = json.loads(
        run("visualize", "ranks", model, "--dataset", market, "--query", query, *again, "--json")
    )
    assert document["queries"] == [f"query/{query}"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("search", "--query", "a.jpg"), "--query IMAGE and --gallery FOLDER"),
        (("search", "--query", "no.h5", "--gallery", "g.h5"), "no.h5: no such features file"),
        (("search", "x.h5", "--query", "a.jpg", "--gallery", "g"), "x.h5 is a features file"),
        (
            ("search", "--query", PICTURE, "--gallery", PICTURE, "--person", "3"),
            "need an index, which stores them with every image. Build one: reidkit index build",
        ),
        (("search", "--query", "a.jpg", "--gallery", "."), "no image found: a.jpg"),
        (("search", "--query", "a.jpg", "--gallery", ".", "--after", "x"), "--after: time 'x'"),
        (("index", "list", "nothing"), "no index in nothing"),
        (("index", "info", "nothing"), "no index in nothing. Build one: reidkit index build"),
        (("index", "add", "nothing"), "give either images"),
        (("index", "expire", "i"), "exactly one of --older-than AGE and --before TIME"),
        (("index", "expire", "i", "--older-than", "soon"), "expected a number and d, h, m or s"),
        (("index", "build", "qdrant://h", "x"), "no image found: x"),
        (("visualize", "ranks", "--png", "a.gif"), "ends in .png"),
    ],
)
def test_mistakes_say_what_to_type(refuse: Run, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refuse(*arguments)


def test_mistakes_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom reidkit.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    try:\n        main(line.split())\n"
        "    except SystemExit as stopped:\n        assert stopped.code == 2\n"
        "    assert not {'torch', 'onnxruntime'} & set(sys.modules), line\n"
    )
    mistakes = [
        *("search --query a.jpg", "search --query no.h5 --gallery g.h5"),
        *("search --query a.jpg --gallery photos", "index list nothing"),
        *(
            "index info nothing",
            "index add nothing a.jpg",
            "index expire nothing --before 2026-01-01",
        ),
    ]
    command = [sys.executable, "-c", code, *mistakes]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("command", "panels"),
    [
        (search_command.search, search_command.PANELS),
        (index_command.build, index_command.BUILD_PANELS),
        (index_command.add, index_command.ADD_PANELS),
    ],
)
def test_every_option_is_in_a_panel(
    command: Callable[..., None], panels: dict[str, tuple[str, ...]]
) -> None:
    options = {
        name
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if not isinstance(parameter.annotation.__metadata__[0], ArgumentInfo)
    }
    assert {name for names in panels.values() for name in names} == options


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Images in the colours of their names, in a folder."""
    folder = tmp_path / "colours"
    folder.mkdir()
    for name, colour in {
        "red": (255, 0, 0),
        "orange": (255, 120, 0),
        "green": (0, 255, 0),
        "blue": (0, 0, 255),
    }.items():
        Image.new("RGB", (4, 8), colour).save(folder / f"{name}.png")
    return folder


RAW = ("--mean", "0,0,0", "--std", "1,1,1")
"""Options by which `write_mean_channels` embeds an image as its mean colour."""


def test_preprocessing_of_a_third_party_model_is_set_by_options_and_by_a_file(
    run: Run, refuse: Run, colours: Path, tmp_path: Path
) -> None:
    model = write_mean_channels(tmp_path / "theirs.onnx")
    search = ("search", model, "--query", colours / "red.png", "--gallery", colours, "--json")
    (found,) = json.loads(run(*search, *RAW))
    assert [Path(hit["path"]).stem for hit in found["hits"][:2]] == ["red", "orange"]
    cosine = 255 / (255**2 + 120**2) ** 0.5  # of red and orange as mean colours
    assert found["hits"][1]["distance"] == pytest.approx(1 - cosine, abs=1e-4)
    Path("raw.toml").write_text("mean = [0, 0, 0]\nstd = [1, 1, 1]\n")
    assert json.loads(run(*search, "--preprocess", "raw.toml")) == [found]
    assert "only takes images of 8x4, not of 16x8" in refuse(*search, "--size", "16x8")


def test_an_index_is_filled_and_searched_with_the_preprocessing_it_was_built_with(
    run: Run, refuse: Run, colours: Path, tmp_path: Path
) -> None:
    model = write_mean_channels(tmp_path / "theirs.onnx")
    (tmp_path / "new").mkdir()
    (colours / "orange.png").rename(tmp_path / "new" / "orange.png")
    run("index", "build", "c.index", colours, "--model", model, *RAW)
    search = ("search", "--query", colours / "red.png", "--gallery", "c.index", "--json")
    add = ("index", "add", "c.index", tmp_path / "new")
    for other in (add, search, (*add, *RAW, "--channels", "bgr")):
        message = refuse(*other)
        assert "c.index holds vectors of another model or setting: preprocess is" in message
        assert "--preprocess FILE, or --size, --mean" in message
    assert json.loads(run("index", "info", "c.index", "--json"))["vectors"] == 3
    run(*add, *RAW)
    (found,) = json.loads(run(*search, *RAW))
    assert [Path(hit["path"]).stem for hit in found["hits"][:2]] == ["red", "orange"]


def test_searching_images_with_an_onnx_file_does_not_import_torch(
    run: Run, colours: Path, tmp_path: Path
) -> None:
    model = write_mean_channels(tmp_path / "theirs.onnx")
    run("index", "build", "c.index", colours, "--model", model, *RAW)
    code = (
        "import sys\nfrom reidkit.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    for gallery in (colours, "c.index"):
        search = ("search", model, "--query", colours / "red.png", "--gallery", gallery, *RAW)
        command = [sys.executable, "-c", code, *map(str, search), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_another_model_is_refused_in_an_index(
    run: Run, refuse: Run, model: Path, photos: Path, tmp_path: Path
) -> None:
    run("index", "build", "p.index", photos, "--model", model)
    with sqlite3.connect(Path("p.index") / DATABASE) as database:
        database.execute(
            "UPDATE meta SET value = replace(value, '_sha256\": \"', '_sha256\": \"0')"
        )
    database.close()
    who = next(photos.iterdir())
    assert "is not the model that p.index was built with" in refuse(
        "search", "--query", who, "--gallery", "p.index"
    )
