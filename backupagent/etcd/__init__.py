"""Placeholder: written with its modules."""
