"""The network in torch, on CPUs and NVIDIA GPUs."""
