"""The memory of each process of a server, and the start of the client. `__main__` has the commands."""
