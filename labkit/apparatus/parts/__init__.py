"""What a cluster is put together from: server processes, the balancer before them, counts, and the picture of all."""
