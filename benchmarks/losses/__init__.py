"""Losses beside lightly's. `__main__` has the commands, and `cases` the losses with their shapes."""
