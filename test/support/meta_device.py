"""What shows on torch's meta device, and a mark for tests that need a GPU; needs torch."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch has no GPU here')


class OffDevice(TorchDispatchMode):
    """Notes every operator that takes or makes a tensor that is not on the meta device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor)]
        if any(x.device.type != 'meta' for x in tensors):
            self.found.append(str(func))
        return made
