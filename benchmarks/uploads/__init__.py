"""Durable uploads beside a plain gRPC stream. `__main__` has the commands, `cell` measures, `report` has the tables."""
