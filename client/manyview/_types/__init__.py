"""The values that the SDK hands out: plain and frozen. Times are in UTC, sizes in bytes, names are resource names.

It may import `_progress`, whose activity is part of a job's progress.

- `words`: the words that arguments and fields may be.
- `datasets`, `images`, `uploads`: data sets, their images, and the report of an upload.
- `jobs`, `models`: train jobs, and methods, backbones and checkpoints. `server`: a server, and its limits and times.
- `selections`, `neighbors`: images that were selected, and images that are near to others.
- `html_table`: a value as a table in a notebook. `scalar_text`: labels and units of the scalars of a job.
"""
