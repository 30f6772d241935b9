"""Decides when to ask; knows no HTTP and no dlt."""
