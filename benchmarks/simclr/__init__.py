"""SimCLR from JPEG files: a job over gRPC, lightly 1.5.26 as it is shipped, and lightly tuned.

- `plan`: the trainings, the sides, the settings of lightly that are tried, and the cells. `report`: the tables.
- `job`: our side. `peer`: lightly's side. `network`: the bare network of either. `window`: the clocks of a turn.
"""
