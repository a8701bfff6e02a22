"""The processes that hold the device: trainer, embedder, describe. No gRPC, no asyncio, no database."""
