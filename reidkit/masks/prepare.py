"""prepare-masks as a function: write the store unless it is complete, and report on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from reidkit.errors import MaskError
from reidkit.masks.journal import remove_journals
from reidkit.masks.labels import default_grouping, load_label_set
from reidkit.masks.matching import label_stem, match_labels
from reidkit.masks.processes import ONE_PROCESS, Processes
from reidkit.masks.report import MaskReport, mask_report
from reidkit.masks.sources import MaskSource, index_maps
from reidkit.masks.store import MaskStore
from reidkit.masks.writer import Compare, Progress, write_store
from reidkit.types import Dataset, Sample, frames

log = logging.getLogger(__name__)


def prepare(
    path: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    source: MaskSource,
    *,
    split: str = "train",
    overwrite: bool = False,
    compare: Compare | None = None,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> MaskReport:
    """Ensures that `path` holds the masks of `samples`, and checks them.

    A file that already holds them, of the same images from the same source, is left as it is.

    Args:
        overwrite: replace a file that holds other masks.
        compare, processes, progress: as `write_store`.

    Raises:
        MaskError: if `path` holds other masks and `overwrite` is off; else as `write_store`.
        DataError: as `write_store`.
    """
    if not overwrite and path.exists():
        store = MaskStore(path)
        header = store.header
        paths = tuple(sorted({sample.path for sample in samples}))
        wanted = (dataset.fingerprint, source.key, source.parts, paths)
        if (header.fingerprint, header.key, header.parts, store.paths) != wanted:
            raise MaskError(
                f"{path} exists and holds other masks ({len(store):,} of {header.dataset},"
                f" {header.split}, from {header.source}). Replace them with --overwrite,"
                " or choose another file with -o FILE"
            )
        if processes.is_main:
            remove_journals(path)  # of a kill at the very end
            log.info("%s already holds these masks", path)
    else:
        write_store(
            path,
            dataset,
            samples,
            source,
            split=split,
            compare=compare,
            processes=processes,
            progress=progress,
        )
    return mask_report(MaskStore.open(path, dataset=dataset, parts=source.parts))


def prepare_synthetic(
    path: Path,
    dataset: Dataset,
    labels: str,
    *,
    progress: Progress | None = None,
) -> MaskReport:
    """`prepare` for the training images of a synthetic data set, from its own label maps.

    Args:
        labels: folder of the label maps under the data set's, as in its manifest.
    """
    samples = list(frames(dataset.train))
    matching = match_labels(
        [sample.path for sample in samples], dataset.root / labels, stem=label_stem
    )
    source = index_maps(dataset.root, matching.complete(), default_grouping(load_label_set("lip")))
    return prepare(path, dataset, samples, source, split="train", progress=progress)
