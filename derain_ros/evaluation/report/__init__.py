"""The report of ``derain report``: one HTML page made from run files."""
