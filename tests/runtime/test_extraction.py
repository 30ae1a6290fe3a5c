"""Extraction by several threads and several processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import SIZE, export_metadata, mean_nodes, write_onnx
from PIL import Image

from reidkit.data import decode
from reidkit.data.decode import to_tensor
from reidkit.errors import DataError
from reidkit.runtime.distributed import ProcessGroup
from reidkit.runtime.execution import Execution
from reidkit.runtime.extraction import ExtractionSettings, extract_images
from reidkit.runtime.image_files import embed_images, embed_tracklets
from reidkit.runtime.onnx_runtime import OnnxEmbedder


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """50 images; image k has the red level k."""
    root = tmp_path_factory.mktemp("images")
    for k in range(50):
        Image.new("RGB", (5, 9), (k, 0, 255)).save(root / f"{k:02d}.png")
    return sorted(root.iterdir())


@pytest.fixture
def unit_rows(tmp_path: Path) -> Path:
    """An export with one output: the mean of each channel, L2-normalised."""
    nodes = [
        *mean_nodes(),
        helper.make_node("LpNormalization", ["y"], ["unit"], axis=1),
    ]
    metadata = export_metadata(outputs=["unit"], features_output="")
    shape = ["n", 3, *SIZE]
    path = tmp_path / "unit.onnx"
    return write_onnx(path, nodes, shape, outputs={"unit": ["n", 3]}, metadata=metadata)


def embedder(path: Path, threads: int) -> OnnxEmbedder:
    """Its embedding of an image is the mean of each channel in [0, 1]."""
    return OnnxEmbedder(path, device="cpu", execution=Execution(threads=threads))


def test_rows_are_in_order_whatever_the_number_of_threads(
    exported: Path, paths: list[Path]
) -> None:
    expected = embed_images(embedder(exported, 1), paths)
    assert np.rint(expected[:, 0] * 255).tolist() == list(range(50))
    for threads in (2, 5):
        several = embedder(exported, threads)
        assert several.concurrency == threads
        assert (embed_images(several, paths, batch=16) == expected).all()
        assert (embed_images(several, paths, batch=3) == expected).all()


def test_tracklets_are_embedded_alike_by_several_threads(exported: Path, paths: list[Path]) -> None:
    tracklets = [paths[:7], paths[7:8], paths[8:40], paths[40:]]
    one, three = (embed_tracklets(embedder(exported, n), tracklets, batch=4) for n in (1, 3))
    assert (one == three).all()
    assert one[0, 0] * 255 == pytest.approx(3)  # the mean of 0 to 6


def test_progress_counts_images_in_order(exported: Path, paths: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    embed_images(
        embedder(exported, 3), paths, batch=20, on_progress=lambda *count: seen.append(count)
    )
    assert seen == [(20, 50), (40, 50), (50, 50)]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_that_cannot_be_read_stops_extraction(
    exported: Path, paths: list[Path], threads: int, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        embed_images(embedder(exported, threads), [*paths, tmp_path / "broken.jpg"], batch=4)


class Rank(ProcessGroup):
    """One process of three whose others embedded nothing."""

    def gather(self, value: Any) -> list[Any]:
        return [value if rank == self.rank else None for rank in range(self.size)]


def test_processes_share_image_files(exported: Path, paths: list[Path]) -> None:
    tracklets: Sequence[Sequence[Path]] = [[path] for path in paths]
    parts = [
        extract_images(embedder(exported, 1), tracklets, group=Rank(rank, 3)).features
        for rank in range(3)
    ]
    whole = extract_images(embedder(exported, 1), tracklets).features
    assert [len(part) for part in parts] == [16, 17, 17]
    assert (np.concatenate(parts) == whole).all()


def test_features_say_whether_their_rows_are_normalised(
    unit_rows: Path, exported: Path, paths: list[Path]
) -> None:
    """A file that normalises gives unit rows; sums over mirrored images and means are none."""

    def normalised(file: Path, tracklets: Sequence[Sequence[Path]], **options: bool) -> bool:
        settings = ExtractionSettings(**options)
        found = extract_images(embedder(file, 1), tracklets, settings)
        return found.attributes["normalised"]

    single = [[path] for path in paths[40:43]]
    assert normalised(unit_rows, single) is True
    assert normalised(unit_rows, single, flip=True) is False
    assert normalised(unit_rows, [[paths[0], paths[49]]]) is False
    assert normalised(exported, single) is False


@pytest.mark.parametrize(("count", "runs"), [(3, [3]), (4, [4]), (10, [4, 4, 2])])
def test_a_thread_of_its_own_computes_few_images_at_once(
    exported: Path, monkeypatch: pytest.MonkeyPatch, count: int, runs: list[int]
) -> None:
    several = embedder(exported, 2)
    pixels = np.arange(count * 3, dtype=np.uint8).reshape(count, 1, 1, 3)
    pixels = np.broadcast_to(pixels, (count, *SIZE, 3))
    seen = []
    run = OnnxEmbedder._run
    monkeypatch.setattr(
        OnnxEmbedder, "_run", lambda self, part: seen.append(len(part)) or run(self, part)
    )
    rows = several.embed(pixels)
    assert seen == runs
    assert np.rint(rows * 255).tolist() == pixels[:, 0, 0].tolist()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("several_frames", [False, True])
def test_features_say_what_decoded_their_images(
    exported: Path,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    several_frames: bool,
    threads: int,
) -> None:
    tracklets = [paths[40:43]] if several_frames else [[path] for path in paths[40:43]]
    expected = extract_images(embedder(exported, threads), tracklets)
    assert expected.attributes["image_backend"] == "pillow"
    read: list[Path] = []
    monkeypatch.setattr(decode, "to_tensor", lambda image: read.append(image) or to_tensor(image))
    found = extract_images(
        embedder(exported, threads), tracklets, ExtractionSettings(image_backend="torchvision")
    )
    assert found.attributes["image_backend"] == "torchvision"
    assert len(read) == 3
    assert np.abs(found.features - expected.features).max() < 0.01


def test_embeddings_without_direction_are_named(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / "black.png", tmp_path / "red.png"]
    for path, colour in zip(paths, [(0, 0, 0), (255, 0, 0)], strict=True):
        Image.new("RGB", (4, 8), colour).save(path)
    extract_images(embedder(exported, 1), [[path] for path in paths])
    assert "1 of 2 embeddings are zero" in caplog.text
