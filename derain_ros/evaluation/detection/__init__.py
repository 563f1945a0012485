"""What a detector makes of rainy, derained and clean frames."""
