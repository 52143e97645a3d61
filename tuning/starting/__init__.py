"""What a search begins with beside its sweep: points to try first, and earlier trials."""
