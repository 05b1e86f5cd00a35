"""Data: named arrays in three splits, written once by content hash."""
