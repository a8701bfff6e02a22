"""The command line: each command is a thin layer over one method of `manyview.Client`.

It may import the public names, `_types`, `_results`, `_uploads`, `_progress`, `_arguments` and `_names`.

- `main`: the program, and how it reports errors. `connection`: the options that all commands share, and output.
- `images`, `jobs`, `models`, `curation`, `preview`, `server`, and `watching/`: one family of commands each.
- `resources`: commands that create and delete.
- `sheet`: contact sheets as files. `stored`: the words and files that name images of a data set.
- `paths`: files and folders that a command names. `interrupted`: what a command says after Ctrl-C.
"""
