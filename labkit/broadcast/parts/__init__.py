"""What the scoreboard is made of, beside the broadcasting: its settings, its history, and what it counts."""
