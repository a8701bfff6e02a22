"""Desired state to running processes: spawn, heartbeat, restart, budgets. No torch, no gRPC."""
