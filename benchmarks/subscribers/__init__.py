"""Measure what 500 subscribers cost a training job, and how late its events reach them.

One server trains one job whose log holds 100,000 events already. Within the job, phases take turns: nobody listens, 500
subscribers follow live, 500 subscribers replay the whole log while 20 others follow live.

- `__main__`: the commands. `stage`: the server and its job. `phases`: the turns, and what each of them measures.
- `crowd`: the process that holds the subscribers. `served`: the server, which also notes when it commits an event.
- `report`: the table.
"""
