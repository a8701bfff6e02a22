"""A newcomer's first hour with a folder of photographs, each command on a terminal of its own.

    python -m benchmarks.first_hour measure --images photographs/   # the commands of an hour, with a job of a minute
    python -m benchmarks.first_hour install --images photographs/   # from `pip install` to a picture of neighbors
    python -m benchmarks.first_hour report

Both measure how long each command takes, and the longest time for which its terminal gets no output. Files:

    walk.py                 the commands of an hour, in the environment that runs the benchmark
    from_install.py         README's commands, in a new environment and from a clean checkout
    steps.py                commands that run on terminals, and what was measured of each
    terminal_recording.py   a program on a pseudo-terminal, and when it wrote what
    report.py               the newest figures as tables, beside those of an earlier walk by hand
"""
