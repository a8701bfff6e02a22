"""Networks and state that several methods are made of.

- `heads`: projection and prediction heads. `prototypes`: learned cluster centres.
- `memory_bank`: a ring buffer of earlier keys. `ema`: the update of a teacher.
- `masking`: which patches of an image are hidden.
"""
