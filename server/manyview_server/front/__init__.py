"""The control plane: asyncio and gRPC. One servicer for each proto file; no torch, no image decoding."""
