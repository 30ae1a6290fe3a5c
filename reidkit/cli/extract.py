"""reidkit extract."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from reidkit.cli.options import (
    THIRD_PARTY,
    BatchOption,
    ClipsOption,
    CompileOption,
    DataRootOption,
    DeviceOption,
    EmbeddingOption,
    FlipOption,
    ImageBackendOption,
    JsonOption,
    ModelArgument,
    OptionalDatasetOption,
    PrecisionOption,
    ProviderOption,
    ThreadsOption,
    TrustOption,
    embedding_option,
    open_data,
    third_party_options,
)
from reidkit.cli.output import print_json, progress
from reidkit.types import Split

log = logging.getLogger(__name__)

PANELS = {
    "Images": ("dataset", "split", "data_root", "images", "tracklets"),
    "Embedding": ("clips", "flip", "embedding"),
    "Execution": (
        *("batch", "device", "threads", "provider", "precision", "compile_"),
        "image_backend",
    ),
    "Third-party ONNX models": THIRD_PARTY,
    "Output": ("out", "json"),
}


@third_party_options
def extract(
    model: ModelArgument = None,
    dataset: OptionalDatasetOption = None,
    split: Annotated[Split, typer.Option(help="Split of the data set.")] = "query",
    data_root: DataRootOption = None,
    images: Annotated[
        str | None, typer.Option(help="Your own images: a folder, a file or a glob.")
    ] = None,
    tracklets: Annotated[
        Path | None,
        typer.Option(help="Your own tracklets: a folder with one sub-folder of frames each."),
    ] = None,
    clips: ClipsOption = "tclnet",
    flip: FlipOption = False,
    embedding: EmbeddingOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = "fp32",
    compile_: CompileOption = False,
    image_backend: ImageBackendOption = "pillow",
    trust: TrustOption = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write; its suffix is .h5, .npz, .csv or .parquet."
        ),
    ] = Path("features.h5"),
    json: JsonOption = False,
    *,
    inputs: dict[str, Any],
) -> None:
    """Extract embeddings to a features file.

    eval reads .h5 and .npz files; .csv and .parquet are for other tools. Under torchrun, several
    processes share the images.

    \b
    Examples:
      reidkit extract --dataset market1501 --split gallery -o gallery.h5
      reidkit extract model.onnx --images photos/ -o features.h5
      reidkit extract third-party.onnx --images photos/ --size 224x224 -o features.csv
    """
    from reidkit.cli.runs import find_model, warn_if_data_changed
    from reidkit.config import require
    from reidkit.data.manifest import locate
    from reidkit.features import check_features_path, write_features

    require(
        sum(source is not None for source in (dataset, images, tracklets)) == 1,
        "give exactly one of --dataset NAME, --images PATH and --tracklets FOLDER",
    )
    check_features_path(out)
    path = find_model(model)
    if dataset is not None:
        locate(dataset, data_root)
        files = []
    else:
        files = find_tracklets(tracklets) if tracklets else [[p] for p in find_images(images)]

    from reidkit.runtime.distributed import join_process_group
    from reidkit.runtime.embedder import load_embedder
    from reidkit.runtime.execution import Execution
    from reidkit.runtime.extraction import ExtractionSettings, extract_images, extract_split

    settings = ExtractionSettings(flip, clips, batch, image_backend)
    with join_process_group(device) as (group, local_device), progress("embedding") as on_progress:
        embedder = load_embedder(
            path,
            device=local_device,
            inputs=inputs,
            options=embedding_option(embedding),
            execution=Execution(provider, threads, "throughput", precision, compile_),
            trust=trust,
        )
        if dataset is not None:
            data = open_data(dataset, data_root)
            warn_if_data_changed(path, data.name, data.fingerprint)
            features = extract_split(
                embedder, data, split, settings, group=group, on_progress=on_progress
            )
        else:
            features = extract_images(
                embedder, files, settings, group=group, on_progress=on_progress
            )
        if not group.is_main:
            return
        write_features(out, features)
    rows, length = features.features.shape
    if json:
        print_json({"file": str(out), "images": rows, "dimension": length})
    else:
        print(f"{out}: {rows:,} embeddings of length {length}")


def find_tracklets(folder: Path) -> list[list[Path]]:
    """The frames of every folder below `folder` that contains images, sorted by name."""
    from reidkit.data.readers.rows import list_images
    from reidkit.errors import DataError

    found: dict[Path, list[Path]] = {}
    for name in list_images(folder):
        found.setdefault((folder / name).parent, []).append(folder / name)
    if not found or folder in found:
        what = "no images" if not found else f"images in {folder} itself"
        raise DataError(f"--tracklets {folder}: found {what}, expected one sub-folder per tracklet")
    return list(found.values())


def find_images(images: str | None) -> list[Path]:
    """Image files in a folder and its sub-folders, at a path, or of a glob, sorted."""
    from reidkit.data.readers.rows import IMAGE_SUFFIXES, list_images
    from reidkit.errors import DataError
    from reidkit.files import check_regular

    assert images is not None
    path = Path(images).expanduser()
    if path.is_dir():
        found = [path / name for name in list_images(path)]
        others = sum(p.is_file() for p in path.rglob("*")) - len(found)
        if others:
            log.info("skipped %d files in %s without an image suffix", others, path)
    elif path.is_file():
        found = [path]
    else:
        check_regular(path, DataError)
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute ones too
        found = [Path(name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        raise DataError(
            f"no image found: {images}. Expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found
