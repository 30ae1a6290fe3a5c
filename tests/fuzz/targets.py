"""All targets."""

from __future__ import annotations

from . import dataset_targets

TARGETS = (*dataset_targets.TARGETS,)
