"""Rendered rain on pictures, videos and recorded bags."""
