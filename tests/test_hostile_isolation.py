"""Commands need no network, write only to the folders they are given, follow the umask, and reidkit
reads no pickle and evaluates no text."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_onnx import write_mean_channels

import reidkit
from reidkit.cli import app
from reidkit.errors import RuntimeMissing
from reidkit.models.weights import OFFLINE, _download

TINY = "--set arch.backbone=resnet18 --set arch.stages=[] --size 64x32 --weights none --epochs 1"
COMMANDS = [
    f"train --arch iaunet --dataset MARKET -o run {TINY} --batch 16 --workers 1 --device cpu",
    "eval run --dataset MARKET --device cpu",
    "extract tiny.onnx --images MARKET/query -o out/f.h5 --device cpu",
]
NO_NETWORK = ["unshare", "--map-root-user", "--net"]


def may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode == 0


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            entry = path.stat()
            found[path.relative_to(folder).as_posix()] = (entry.st_size, entry.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def worked(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of work/, home/, cache/, temporary/ and data/ after all COMMANDS, in a network of
    its own where the system permits that, under the umask 027."""
    root = tmp_path_factory.mktemp("isolation")
    places = {name: root / name for name in ("work", "home", "cache", "temporary")}
    for place in places.values():
        place.mkdir()
    shutil.copytree(market, root / "data")
    write_mean_channels(places["work"] / "tiny.onnx").chmod(0o640)
    before = tree(root / "data")
    ours = ("REIDKIT", "ORT_", "CI", "GITHUB")  # a test run may have set some
    known = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = known | {
        "HOME": str(places["home"]),
        "XDG_CACHE_HOME": str(places["cache"]),
        "TMPDIR": str(places["temporary"]),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    prefix = NO_NETWORK if may_unshare() else []
    for command in COMMANDS:
        arguments = command.replace("MARKET", str(root / "data")).split()
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "reidkit", *arguments],
            cwd=places["work"],
            env=environment,
            umask=0o027,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert tree(root / "data") == before, "a command changed the data set"
    return root


@pytest.mark.skipif(not may_unshare(), reason="a network of its own is not permitted here")
def test_training_evaluation_and_extraction_need_no_network(worked: Path) -> None:
    for name in ("run/model.safetensors", "run/metrics.json", "out/f.h5"):
        assert (worked / "work" / name).is_file(), name


def test_nothing_is_written_outside_the_given_folders_and_the_documented_caches(
    worked: Path,
) -> None:
    caches = [name for name in tree(worked / "cache") if not name.startswith("matplotlib/")]
    assert not caches
    assert not tree(worked / "home")
    assert not tree(worked / "temporary")
    outputs = {path.name for path in (worked / "work").iterdir()}
    assert outputs == {"tiny.onnx", "run", "out"}
    assert not [name for name in tree(worked / "work") if name.endswith((".partial", ".tmp"))]


def test_files_follow_the_umask(worked: Path) -> None:
    files = [path for path in (worked / "work").rglob("*") if path.is_file()]
    wrong = {
        path.name: oct(mode)
        for path in files
        if (mode := stat.S_IMODE(path.stat().st_mode)) != 0o640
    }
    assert files and not wrong


def test_offline_refuses_a_download_and_names_the_command_that_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(RuntimeMissing, match=r"run: curl --create-dirs -o \S+resnet18\S+ https://"):
        _download("resnet18")
    assert not list(tmp_path.iterdir())


def test_train_offline_is_refused_before_it_downloads(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(OFFLINE, raising=False)
    arguments = TINY.replace("--weights none", "--weights auto").split()
    line = ["train", "--arch", "iaunet", "--dataset", str(market), "-o", "run", *arguments]
    with pytest.raises(RuntimeMissing, match=r"offline, and .* is missing"):
        app([*line, "--device", "cpu", "--workers", "0", "--offline"])
    assert OFFLINE not in os.environ
    assert not (tmp_path / "torch").exists()


SOURCES = sorted(Path(reidkit.__file__).parent.rglob("*.py"))


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Calls by dotted name."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_reidkit_reads_no_pickle_and_evaluates_no_text() -> None:
    """The module pickle is imported for its UnpicklingError alone."""
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "yaml.load", "joblib.load"}
    wrong = []
    for path in SOURCES:
        for name, call in calls(ast.parse(path.read_text("utf-8"))):
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            refused = (
                name in forbidden
                or name.startswith(("pickle.", "marshal.", "shelve.", "dill."))
                or (name == "torch.load" and options.get("weights_only") != "True")
                or (name == "torch.jit.load")
                or (options.get("allow_pickle", "False") != "False")
                or (name.startswith("subprocess.") and options.get("shell", "False") != "False")
            )
            if refused:
                wrong.append(f"{path}:{call.lineno}: {ast.unparse(call)[:80]}")
    assert not wrong


def test_numpy_never_loads_objects() -> None:
    """np.load is used nowhere, and read_array says so itself."""
    names = [
        (name, {o.arg: ast.unparse(o.value) for o in call.keywords})
        for path in SOURCES
        for name, call in calls(ast.parse(path.read_text("utf-8")))
    ]
    assert "np.load" not in {name for name, _ in names}
    readers = [options for name, options in names if name.endswith("format.read_array")]
    assert readers and all(options.get("allow_pickle") == "False" for options in readers)
