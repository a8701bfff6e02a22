"""The command `watch`: a board that redraws itself on a terminal, plain lines elsewhere.

- `command`: the command, and what Ctrl-C says. `session`: a board on a terminal, with its keys, until the job ends.
- `board`: the screen. `series`: the history of one scalar as a sparkline. `scalars`: labels and units.
- `lines`: an event as one line of text.
"""
