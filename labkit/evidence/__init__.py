"""What an experiment leaves behind: measurements, figures, claims and the contract."""
