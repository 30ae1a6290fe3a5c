"""Indexes that commands name, and the models that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from reidkit.index.records import Gallery


def check_index_name(index: str | None) -> str | None:
    """Callback of arguments and options that name an index; None where one was not given.

    Raises:
        ConfigError: the name is empty, as of a shell variable that is not set.
    """
    if index == "":
        raise ConfigError(
            "the name of the index is empty. Pass its directory, or qdrant://HOST:6333/COLLECTION"
        )
    return index


IndexArgument = Annotated[
    str,
    typer.Argument(
        help="Index directory, or qdrant://HOST:6333/COLLECTION.", callback=check_index_name
    ),
]


def open_gallery(index: str) -> Gallery:
    """The index, which is refused before torch is imported if there is none."""
    from reidkit.errors import DataError
    from reidkit.index.records import is_index

    if not is_index(index):
        raise DataError(
            f"no index in {index}. Build one: reidkit index build {index} IMAGES --model MODEL"
        )
    from reidkit.index.opening import open_index

    return open_index(index)


def open_model(
    gallery: Gallery, model: Path | None, inputs: Mapping[str, Any], device: str, trust: bool
) -> Any:
    """The embedder of an index's vectors: `model`, or the file that the index remembers.

    Args:
        inputs: from `external_inputs`.

    Raises:
        ConfigError: the file is no longer there.
        DataError: it is another model, or other preprocessing.
    """
    from reidkit.runtime.embedder import load_embedder

    path = find_index_model(gallery, model)
    embedder = load_embedder(path, device=device, inputs=inputs, trust=trust)
    header = gallery.header
    header.check_model(embedder.source_hash, model=path, where=gallery.name)
    header.check_same_model(
        replace(header, preprocess=embedder.preprocess.to_json()), where=gallery.name
    )
    return embedder


def find_index_model(gallery: Gallery, model: Path | None) -> Path:
    """The file of an index's model: `model`, or the one that the index remembers.

    Raises:
        CheckpointError: `model` is not a model.
        ConfigError: the file that the index remembers is no longer there.
    """
    from reidkit.cli.runs import find_model

    remembered = Path(gallery.header.model)
    if model is not None:
        return find_model(model)
    if not (gallery.header.model and remembered.is_file()):
        raise ConfigError(
            f"{gallery.name} was built with {gallery.header.model or 'features of another tool'}, "
            "which is not there. Pass the model's file (index add: --model FILE)"
        )
    return remembered
