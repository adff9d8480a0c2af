"""What the scoreboard has beside its hub: its settings, and what it counts."""
