"""The papers' tables, row by row."""
