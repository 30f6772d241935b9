"""Receives webhook deliveries over HTTP, and stores them in an inbox. Needs the extra `receiver`."""
