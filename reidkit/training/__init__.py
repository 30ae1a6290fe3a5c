"""Training: settings and a data set in, a run folder with checkpoints and metrics out."""
