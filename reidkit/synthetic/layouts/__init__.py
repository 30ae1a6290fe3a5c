"""The layouts of synthetic data sets on disk, which are those of published data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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

_PLANS: dict[SyntheticLayout, Callable[[SyntheticConfig], Layout]] = {
    "market1501": market1501,
    "market1501-500k": market1501_500k,
    "dukemtmc-reid": dukemtmc_reid,
    "msmt17": partial(msmt17, release="v1"),
    "msmt17-v2": partial(msmt17, release="v2"),
    "cuhk03-np-labeled": partial(cuhk03_np, boxes="labeled"),
    "cuhk03-np-detected": partial(cuhk03_np, boxes="detected"),
    "cuhk03-classic-labeled": partial(cuhk03_classic, boxes="labeled"),
    "cuhk03-classic-detected": partial(cuhk03_classic, boxes="detected"),
    "mars": mars,
    "dukemtmc-videoreid": dukemtmc_videoreid,
    "csv": csv_table,
}

LAYOUTS: dict[SyntheticLayout, Writer] = {
    "cifar100": write_cifar100,
    **{name: partial(write_layout, name=name, plan=plan) for name, plan in _PLANS.items()},
}

__all__ = ["LAYOUTS", "Writer"]
