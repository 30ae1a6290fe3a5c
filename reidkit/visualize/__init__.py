"""Pictures and measurements of what a network does."""
