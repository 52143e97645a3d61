"""Where the time and memory of a model go."""
