"""The only HTTP: one request, one outcome."""
