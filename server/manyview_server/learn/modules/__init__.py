"""Networks and state that several methods are made of.

It may import what `learn` may import, and its neighbors `counter_random` and `normalize`.

- `heads`: projection and prediction heads. `prototypes`: learned cluster centres.
- `memory_bank`: a ring buffer of earlier keys. `ema`: the update of a teacher.
- `masking`: which patches of an image are hidden.
"""
