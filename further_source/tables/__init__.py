"""One declaration of each table, and what fills it."""
