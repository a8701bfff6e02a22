"""Data sets that are large beside memory, or have millions of images. Each file has commands of its own."""
