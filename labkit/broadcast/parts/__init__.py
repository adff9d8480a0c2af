"""What the rooms above are made of, a folder for each."""
