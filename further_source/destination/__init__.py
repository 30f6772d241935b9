"""How a load meets its destination: merging, the ledger, pending packages, types of columns."""
