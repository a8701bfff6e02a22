"""The resources that the operating system grants this process: time awake, cores, memory, files, disk space.

It imports `errors`, and nothing else of ours. Every other package may use it.

- `awake_time`: time limits that count only the time for which this process was awake.
- `core_time`: how long a thread runs, and how long it waits for a core that other work has.
- `control_groups`: the control groups of Linux that limit this process.
- `host_memory`: how much memory this process may use.
- `open_files`: recognise and report that no file descriptor is left.
- `heap`: keep freed memory instead of giving it back.
- `disk_space`: how much room a disk has, and how much must stay free.
- `sized_work`: work on a few bytes in the event loop, and on many in a thread.
"""
