"""What is asked of the learner: predictions before a run, and what became of them."""
