"""What must survive: shards, registry and event log, checkpoints. No torch, no gRPC."""
