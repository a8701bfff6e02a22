"""The peers' servers. They run in environments without manyview, so they import nothing of it.

- `served_model`: the network and its settings, the same for all. `*_server`: one program for each peer.
"""
