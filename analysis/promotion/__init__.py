"""Which trial to trust, and putting it into the registry of model versions."""
