"""What an experiment is set up with: servers, clients, child processes, and the account of what is open."""
