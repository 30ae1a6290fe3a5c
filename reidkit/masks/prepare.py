"""The whole of prepare-masks: write the store, or find it written, and report on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from reidkit.errors import MaskError
from reidkit.masks.layout import read_layout
from reidkit.masks.report import Report, report
from reidkit.masks.sources import MaskSource
from reidkit.masks.store import MaskStore, write_store
from reidkit.types import Dataset, Sample

log = logging.getLogger(__name__)


def prepare(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    source: MaskSource,
    *,
    split: str = "train",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Makes sure that `path` holds the masks of `samples`, and looks at them.

    A file that already holds them, of the same images from the same source, is left as it is.

    Args:
        overwrite: replace a file that holds other masks.

    Raises:
        MaskError: if such a file is there and may not be replaced; else as `write_store`.
        DataError: as `write_store`.
    """
    if not overwrite and path.exists():
        layout = read_layout(path)
        header = layout.header
        paths = tuple(sorted({sample.path for sample in samples}))
        wanted = (dataset.fingerprint, source.key, source.parts, paths)
        if (header.fingerprint, header.key, header.parts, layout.paths) != wanted:
            raise MaskError(
                f"{path} exists and holds other masks ({len(layout.paths):,} of {header.dataset},"
                f" {header.split}, from {header.source}). Replace them by --overwrite,"
                " or write elsewhere by -o FILE"
            )
        log.info("%s already holds these masks", path)
    else:
        write_store(path, dataset, samples, source, split=split, progress=progress)
    return report(MaskStore.open(path, dataset=dataset, parts=source.parts))
