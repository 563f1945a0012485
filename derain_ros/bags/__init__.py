"""Recorded bags, damaged ones too: read, derained, and written to the same bytes every time."""
