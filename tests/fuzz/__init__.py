"""Damaged and hostile files for every parser: `python -m tests.fuzz --help`."""
