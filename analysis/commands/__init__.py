"""The commands of ``python -m analysis``: one module each, which parses, delegates and prints."""
