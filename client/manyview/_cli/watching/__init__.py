"""The command `watch`: a board that redraws itself on a terminal, plain lines elsewhere.

It may import what `_cli` may import, and its neighbors `connection` and `interrupted`.

- `command`: the command, and what Ctrl-C says. `session`: a board on a terminal, with its keys, until the job ends.
- `board`: the screen. `series`: the history of one scalar as a sparkline.
- `lines`: an event as one line of text.
"""
