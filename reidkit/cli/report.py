"""reidkit report."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reidkit.checkpoint import Header
    from reidkit.data.schema import Manifest

log = logging.getLogger(__name__)

CARD = "MODEL_CARD.md"


def report(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run folder.", show_default="the newest run")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Write a model card in Markdown.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write, or - for stdout.",
            show_default=f"{CARD} beside the checkpoint",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write a model card for a checkpoint.

    The card contains the network, its training data and settings, the results of reidkit eval, how
    to use it, its limits and licences.

    \b
    Examples:
      reidkit report --card
      reidkit report runs/x --card -o MODEL_CARD.md
      reidkit report model.safetensors --card -o -
    """
    from reidkit.cli.runs import find_model
    from reidkit.config import require

    model_argument = "" if model is None else f" {shlex.quote(str(model))}"
    require(
        card,
        f"report writes a model card and nothing else. Run: reidkit report{model_argument} --card",
    )
    path = find_model(model)
    require(
        path.suffix != ".onnx",
        f"{path} is an ONNX file. Pass the checkpoint that it was exported from",
    )
    target = out or path.with_name(CARD)
    to_stdout = target == Path("-")
    require(
        to_stdout or overwrite or not target.exists(),
        f"{target} exists and may have been edited. Add --overwrite to replace it, or choose "
        "another file with -o",
    )

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
    if to_stdout:
        print(text, end="")
        return
    with atomic(target) as partial:
        partial.write_text(text)
    print(target)


def find_training_manifest(path: Path, header: Header) -> Manifest | None:
    """The manifest of a checkpoint's training data; None with a warning if it is not there."""
    from reidkit.cli.runs import trained_on
    from reidkit.data.manifest import find_manifest, load_manifest
    from reidkit.errors import ReidkitError

    if not header.dataset:
        return None
    try:
        manifest = load_manifest(find_manifest(trained_on(path)))
    except ReidkitError as error:
        log.warning("the card does not state the licence of the training data: %s", error)
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
