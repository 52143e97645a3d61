"""What is looked at before the first trial, so that a search fails at once or not at all."""
