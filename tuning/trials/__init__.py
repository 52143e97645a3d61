"""A trial where it is trained: Ray's trainable, and the files of checkpoints and weights."""
