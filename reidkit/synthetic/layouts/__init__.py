"""How the drawn people are laid out on disk, as published data sets are."""

from __future__ import annotations

from reidkit.synthetic.layouts.cifar100 import write_cifar100
from reidkit.synthetic.layouts.folder import Writer
from reidkit.synthetic.layouts.images import (
    cuhk03_classic,
    cuhk03_np,
    msmt17,
    write_csv,
    write_dukemtmc_reid,
)
from reidkit.synthetic.layouts.market1501 import write_market1501, write_market1501_500k
from reidkit.synthetic.layouts.videos import write_dukemtmc_videoreid, write_mars

LAYOUTS: dict[str, Writer] = {
    "market1501": write_market1501,
    "market1501-500k": write_market1501_500k,
    "dukemtmc-reid": write_dukemtmc_reid,
    "msmt17": msmt17("v1"),
    "msmt17-v2": msmt17("v2"),
    "cuhk03-np-labeled": cuhk03_np("labeled"),
    "cuhk03-np-detected": cuhk03_np("detected"),
    "cuhk03-classic-labeled": cuhk03_classic("labeled"),
    "cuhk03-classic-detected": cuhk03_classic("detected"),
    "mars": write_mars,
    "dukemtmc-videoreid": write_dukemtmc_videoreid,
    "cifar100": write_cifar100,
    "csv": write_csv,
}
"""What `--layout` may name."""

__all__ = ["LAYOUTS", "Writer", "write_market1501"]
