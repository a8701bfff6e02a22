"""manyview's server: front (gRPC), store (what survives), supervise (processes), worker (torch), learn (library)."""
