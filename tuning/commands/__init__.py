"""The commands of ``python -m tuning``: one module each, which parses, delegates and prints."""
