"""reidkit: person re-identification from a folder of images to a deployed model."""

__version__ = "0.1.0"
