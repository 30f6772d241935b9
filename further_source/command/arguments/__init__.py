"""The arguments of each subcommand. Nothing here imports dlt, so that help and wrong usage are told at once."""
