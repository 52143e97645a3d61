"""Where experiments are kept, and what is done when it is away."""
