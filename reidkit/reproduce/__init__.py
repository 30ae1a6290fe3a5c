"""The papers' tables, row by row: what to train for each row, and what the paper reports."""
