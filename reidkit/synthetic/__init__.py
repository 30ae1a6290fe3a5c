"""The built-in pedestrians, written out in any supported on-disk layout."""

from collections.abc import Callable

LAYOUTS: dict[str, Callable[..., None]] = {}
