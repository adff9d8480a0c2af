"""One right answer to each exercise; solution() shows it."""
