"""Galleries that are kept: vectors with path, camera, time and person, to add to and search in."""
