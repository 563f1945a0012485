"""The network compiled by TensorRT for one NVIDIA GPU."""
