"""One run: how it begins, what ends in it by polling or by delivery, its records, its loads, and how it went."""

from further_source.run.slices import run_in_slices

__all__ = ["run_in_slices"]
