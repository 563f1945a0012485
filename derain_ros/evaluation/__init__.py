"""How good derained pictures are, and what the rain gate and detectors make of them."""
