"""Self-supervised learning in plain PyTorch: views, networks, losses, methods, evaluation. Knows of no service."""
