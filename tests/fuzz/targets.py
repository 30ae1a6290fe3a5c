"""All targets."""

from __future__ import annotations

from . import array_targets, dataset_targets, model_targets

TARGETS = (*dataset_targets.TARGETS, *array_targets.TARGETS, *model_targets.TARGETS)
