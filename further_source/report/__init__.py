"""The report: aggregates that the destination makes, drawn into one HTML file that needs nothing else."""
