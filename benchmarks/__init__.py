"""Measurements of speed: scripts that print a table with what it was measured on."""
