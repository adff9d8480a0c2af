"""What a guard is made of: where tokens are shown, what one client may send, and what may be asked of a guard."""
