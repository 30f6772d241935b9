"""What the command does beyond the source."""
