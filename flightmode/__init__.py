"""Flightmode: PostgreSQL that stays up by itself on a few cheap servers."""

__version__ = "0.1.0"
