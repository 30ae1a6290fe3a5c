"""How the drawn people are laid out on disk: one file per published data set's layout."""

from __future__ import annotations

from reidkit.synthetic.layouts.folder import Writer
from reidkit.synthetic.layouts.market1501 import write_market1501

LAYOUTS: dict[str, Writer] = {
    "market1501": write_market1501,
}
"""What `--layout` may name."""

__all__ = ["LAYOUTS", "Writer", "write_market1501"]
