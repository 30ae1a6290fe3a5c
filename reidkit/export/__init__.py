"""From a checkpoint to a verified ONNX file that a particular program loads."""

from reidkit.export.consumers import CONSUMERS, settings_for
from reidkit.export.exporter import ExportReport, export_onnx
from reidkit.export.settings import ExportSettings
from reidkit.export.verification import Parity

__all__ = [
    "CONSUMERS",
    "ExportReport",
    "ExportSettings",
    "Parity",
    "export_onnx",
    "settings_for",
]
