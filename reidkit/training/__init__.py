"""Training: a recipe and a data set in, a folder with a checkpoint and its history out."""
