"""What a hub is made of: its rooms with their logs, who is in them, and what it says to clients and other servers."""
