"""reidkit report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import BatchOption, DataRootOption, DeviceOption

if TYPE_CHECKING:
    from reidkit.checkpoint import Header
    from reidkit.data.schema import Manifest

log = logging.getLogger(__name__)

CARD = "MODEL_CARD.md"
REPORT = "report.html"

PANELS = {
    "Data": ("dataset", "data_root", "query_features", "gallery_features"),
    "Contents": ("card", "no_images", "worst", "target_fpr"),
    "Embedding": ("batch", "device"),
    "Output": ("out", "overwrite"),
}


def report(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run folder.", show_default="the newest run")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write a model card in Markdown instead.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set name, manifest file or folder.", show_default="as trained"),
    ] = None,
    data_root: DataRootOption = None,
    query_features: Annotated[
        Path | None, typer.Option(help="Features file of the queries, to embed nothing.")
    ] = None,
    gallery_features: Annotated[
        Path | None, typer.Option(help="Features file of the gallery, to embed nothing.")
    ] = None,
    no_images: Annotated[
        bool,
        typer.Option("--no-images", help="Leave out what needs the data set; show stored results."),
    ] = False,
    worst: Annotated[int, typer.Option(min=0, max=50, help="Queries of the lowest AP.")] = 10,
    target_fpr: Annotated[
        float, typer.Option(help="Choose the threshold of this false positive rate.")
    ] = 0.001,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write; - prints the card.",
            show_default=f"{REPORT} or {CARD} beside the checkpoint",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write a run as one HTML page, or a model card.

    The page contains training curves, metrics with intervals, CMC, ROC, distances, camera pairs,
    the worst queries, attention, data, settings and the commands that repeat the run. It loads
    nothing from elsewhere. Query and gallery are embedded once for it. --no-images needs no data
    set: results stored by reidkit eval are shown.

    The card contains the network, its training data and settings, the results of reidkit eval, how
    to use it, its limits and licences.

    \b
    Examples:
      reidkit report runs/x
      reidkit report runs/x --no-images -o x.html
      reidkit report runs/x --card
      reidkit report model.safetensors --card -o -
    """
    from reidkit.cli.runs import find_model
    from reidkit.config import require
    from reidkit.data.manifest import locate

    path = find_model(model)
    require(
        path.suffix != ".onnx",
        f"{path} is an ONNX file. Pass the checkpoint that it was exported from",
    )
    target = out or path.with_name(CARD if card else REPORT)
    to_stdout = target == Path("-")
    require(
        to_stdout or overwrite or not target.exists(),
        f"{target} exists and may have been edited. Add --overwrite to replace it, or choose "
        "another file with -o",
    )
    if card:
        write_card(path, None if to_stdout else target)
        return
    require(not to_stdout, "a page is written to a file: -o report.html")
    features = None
    if query_features is not None and gallery_features is not None:
        features = (query_features, gallery_features)
        for file in features:
            require(file.is_file(), f"no such features file: {file}")
    else:
        require(
            query_features is None and gallery_features is None,
            "pass both --query-features and --gallery-features",
        )
    require(0 < target_fpr < 1, f"--target-fpr {target_fpr}: write a number between 0 and 1")
    if dataset is not None and not no_images:
        locate(dataset, data_root)

    from reidkit.cli.report_contents import ReportOptions, report_source

    options = ReportOptions(
        dataset=dataset,
        data_root=data_root,
        features=features,
        images=not no_images,
        worst=worst,
        target_fpr=target_fpr,
        batch=batch,
        device=device,
    )
    source = report_source(path, options)

    from reidkit.visualize.report import write_report

    write_report(target, source)
    print(target)


def write_card(path: Path, target: Path | None) -> None:
    """Writes the model card of a checkpoint; prints it if `target` is None."""
    from reidkit.checkpoint import read_header
    from reidkit.files import atomic, sha256
    from reidkit.visualize.model_card import CardSource, model_card

    header, digest = read_header(path), sha256(path)
    source = CardSource(
        file=path.name,
        sha256=digest,
        header=header,
        manifest=find_training_manifest(path, header),
        results=results_of(path, digest),
    )
    text = model_card(source)
    if target is None:
        print(text, end="")
        return
    with atomic(target) as partial:
        partial.write_text(text)
    print(target)


def find_training_manifest(path: Path, header: Header) -> Manifest | None:
    """The manifest of a checkpoint's training data; None if it is not there, with a warning that
    its licence is missing, which synthetic data do not have."""
    from reidkit.cli.runs import trained_on
    from reidkit.data.manifest import find_manifest, load_manifest
    from reidkit.errors import ReidkitError

    if not header.dataset:
        return None
    try:
        manifest = load_manifest(find_manifest(trained_on(path)))
    except ReidkitError as error:
        if not header.synthetic:
            log.warning("the licence of the training data is not stated: %s", error)
        return None
    # A synthetic data set can have the name of a published one, but not its licence.
    return manifest if manifest.synthetic == header.synthetic else None


def results_of(path: Path, digest: str) -> list[dict[str, Any]]:
    """Stored results of the checkpoint with this sha256, in the run folder that it is in."""
    from reidkit.cli.runs import METRICS, read_results, run_folder

    run = run_folder(path)
    if run is None or not (run / METRICS).is_file():
        return []
    results = read_results(run)
    own = [result for result in results if result.get("model_sha256") == digest]
    if len(own) < len(results):
        log.info(
            "left out %d of %d results in %s: they are of other model files",
            *(len(results) - len(own), len(results), run / METRICS),
        )
    return own
