"""SimCLR from JPEG files: a job over gRPC, lightly 1.5.26 as it is shipped, and lightly tuned."""
