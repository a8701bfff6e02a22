"""One script for a machine with one CUDA device: every CUDA path beside its CPU twin, and the first figures.

`make gpu` runs it, `python -m benchmarks.gpu --wheels` says which packages a bare machine lacks. Files:

    plan.py       the sections in their order, each with its time budget, its rows and the packages it needs
    sections.py   how sections run: a deadline, a record of each, and nothing that takes the others with it
    document.py   the JSON that is written after each section, and its tables
    wheels.py     which pinned packages are missing
    bench.py      what a section is given: device, sizes, checks, figures, clocks
    throughput.py service.py   figures of training and of a whole server
    comparisons/  pictures.py  images drawn for this run
                  views.py losses.py optimizers.py steps.py worker.py selection.py memory.py   checks
                  kernels.py decoding.py   figures

Sections of `learn` need torch alone; those of `worker` need simplejpeg, those of `service` the whole server.
"""
