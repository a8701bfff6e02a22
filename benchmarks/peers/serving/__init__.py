"""The peers' servers. They run in environments without manyview, so they import nothing of it.

- `served_model`: the network, the same for all. `settings`: its settings. `*_server`: one program for each peer.
"""
