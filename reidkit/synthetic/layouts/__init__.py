"""The layouts of synthetic data sets on disk, which are those of published data sets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from reidkit.choices import SyntheticLayout
from reidkit.synthetic.layouts.cifar100 import write_cifar100
from reidkit.synthetic.layouts.folder import SyntheticConfig, Writer
from reidkit.synthetic.layouts.images import (
    csv_table,
    cuhk03_classic,
    cuhk03_np,
    dukemtmc_reid,
    msmt17,
)
from reidkit.synthetic.layouts.market1501 import market1501, market1501_500k
from reidkit.synthetic.layouts.planning import Layout, write_layout
from reidkit.synthetic.layouts.videos import dukemtmc_videoreid, mars
from reidkit.synthetic.visits import Progress


def _writer(plan: Callable[[SyntheticConfig], Layout]) -> Writer:
    def write(
        root: Path,
        *,
        train_pids: int,
        test_pids: int,
        seed: int,
        on_progress: Progress | None = None,
        workers: int | None = None,
    ) -> None:
        layout = plan(SyntheticConfig(train_pids, test_pids, seed))
        write_layout(root, layout, on_progress=on_progress, workers=workers)

    return write


LAYOUTS: dict[SyntheticLayout, Writer] = {
    "market1501": _writer(market1501),
    "market1501-500k": _writer(market1501_500k),
    "dukemtmc-reid": _writer(dukemtmc_reid),
    "msmt17": _writer(functools.partial(msmt17, release="v1")),
    "msmt17-v2": _writer(functools.partial(msmt17, release="v2")),
    "cuhk03-np-labeled": _writer(functools.partial(cuhk03_np, boxes="labeled")),
    "cuhk03-np-detected": _writer(functools.partial(cuhk03_np, boxes="detected")),
    "cuhk03-classic-labeled": _writer(functools.partial(cuhk03_classic, boxes="labeled")),
    "cuhk03-classic-detected": _writer(functools.partial(cuhk03_classic, boxes="detected")),
    "mars": _writer(mars),
    "dukemtmc-videoreid": _writer(dukemtmc_videoreid),
    "cifar100": write_cifar100,
    "csv": _writer(csv_table),
}

__all__ = ["LAYOUTS", "Writer"]
