"""What the rooms above are made of, a folder for each; nobody outside needs to come here."""
