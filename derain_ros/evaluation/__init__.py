"""Derain files and bags, and measure the result."""
