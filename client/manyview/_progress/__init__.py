"""The progress of a call, shown while its caller waits. This package needs the standard library alone.

- `report`: takes the progress of the parts of a call to the place that `progress=` names.
- `status_line`: one line that is redrawn on a terminal or in a notebook. `display`: where there is one.
- `activity`: the work of a train job at the moment.
- `words`: counts, seconds and bars as text.
"""
