"""What a call is doing, and how far it is, while its caller waits. It needs the standard library alone.

- `report`: what the caller asked for with `progress=`, and what the parts of a call report to.
- `status_line`: one line that is redrawn on a terminal or in a notebook. `display`: where there is one.
- `words`: counts, seconds and bars as text.
"""
