"""HTML reports and plots of measurements."""
