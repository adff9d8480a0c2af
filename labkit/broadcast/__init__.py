"""What is taught, and what you could ship. This wing knows nothing of the laboratory."""
