"""What people say of cells: reviews, the queue of what to look at, and thresholds that keep a promise."""
