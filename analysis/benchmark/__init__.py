"""How long decoding takes: eager against every export."""
