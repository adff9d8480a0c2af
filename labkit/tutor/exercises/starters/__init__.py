"""What the exercise cells of the notebooks begin with: code that is not finished, or has a bug."""
