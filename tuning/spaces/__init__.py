"""What is searched: fields with distributions, conditions, constraints; and points."""
