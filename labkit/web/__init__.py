"""The live board: plain HTML, CSS and JavaScript, served by labkit.broadcast.app."""
