"""The dual-stage deraining network, in torch."""
