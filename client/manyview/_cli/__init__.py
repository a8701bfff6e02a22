"""The command line: each command is a thin layer over one method of `manyview.Client`.

- `main`: the commands together. `connection`: the options that all of them share.
- `images`, `jobs`, `models`, `curation`, `preview`, `server`, `watch`: a family of commands each.
- `sheet`: a contact sheet of images. `stored`: images of a data set as pictures.
"""
