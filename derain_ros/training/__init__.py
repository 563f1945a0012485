"""Training of the dual-stage network and its export to ONNX."""
