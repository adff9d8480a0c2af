"""What a proxy is made of: where it passes things on to, and the links that do it."""
