"""What the process of a fleet runs: the clients on the wire, and the swarm that they make."""
