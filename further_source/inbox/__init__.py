"""Webhook deliveries, stored as files: found, read, and put away once they are loaded."""
