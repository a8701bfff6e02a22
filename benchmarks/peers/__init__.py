"""Compare manyview's embedding service with servers that embed the same images with the same weights.

- `plan`: the sides, the cells, and the batching that is tried. `environments`: an environment for each peer.
- `models`: the jobs whose checkpoints manyview serves, and their weights for the peers. `model_files`: their files.
- `servers`: start and stop the server of a side. `serving`: the peers' servers; it is imported in their environments.
- `load`: the program that calls a server. `callers`: the calls of each side. `usage`: CPU seconds of processes.
- `report`: the tables.
"""
