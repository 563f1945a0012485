"""The Triton kernels of the torch engine: interpreted on the CPU, and compiled for GPUs.

What is not asserted: that a GPU runs them, and how fast they are.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip('triton', reason='Triton comes with torch for CUDA; `pip install triton`')

# The interpreter is chosen as Triton is imported, so in processes of their own.
BLOCKS = """
import torch
from derain_ros.engines.torch.torch_fused import FusedGatedBlock
from derain_ros.network.blocks import REACH, GatedBlock

torch.manual_seed(0)
for channels in (16, 40, 128):
    block = GatedBlock(channels).eval()
    for weights in block.parameters():
        torch.nn.init.normal_(weights, std=0.15)
    # Two frames, and sides that are no multiples of anything.
    features = torch.randn(2, channels, 13, 17)
    with torch.inference_mode():
        expected = block(2 * features)
    assert expected.abs().max() == REACH or channels == 16
    for dtype in (torch.float32, torch.float16):
        fused = FusedGatedBlock(block.to(dtype))
        with torch.inference_mode():
            found = fused(2 * features.to(dtype).to(memory_format=torch.channels_last))
        assert found.dtype is dtype and found.is_contiguous(memory_format=torch.channels_last)
        error = (found.float() - expected).abs().max() / expected.abs().max()
        assert error < (1e-6 if dtype is torch.float32 else 2e-3), (channels, dtype, error)
        block.float()
"""
NETWORKS = """
import torch
from derain_ros.engines.agreement import test_frame
from derain_ros.engines.torch.torch_fused import FusedGatedBlock, Pointwise, fuse
from derain_ros.network.dual_stage import VARIANTS, DeployedNetwork, DualStageNetwork

torch.manual_seed(0)
network = DualStageNetwork(VARIANTS['nano'])
for weights in network.parameters():
    torch.nn.init.normal_(weights, std=0.05)
frame = torch.from_numpy(test_frame(64, 64))
plain = DeployedNetwork(network).eval().to(memory_format=torch.channels_last)
with torch.inference_mode():
    expected = plain(frame)
    fuse(plain.network)
    found = plain(frame)
kinds = [type(module).__name__ for module in plain.modules()]
assert 'GatedBlock' not in kinds and 'FusedGatedBlock' in kinds and 'Pointwise' in kinds
assert not torch.equal(expected[0], frame)
for one, two in zip(found, expected):
    assert (one.int() - two.int()).abs().max() <= 1
"""


def interpret(script):
    """Run a script in a process whose Triton interprets; returns what it says."""
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, timeout=300,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_blocks_are_those_of_the_network():
    interpret(BLOCKS)


def test_a_fused_network_sees_the_same():
    interpret(NETWORKS)


def test_more_channels_than_fit_stay_as_they_are():
    import torch

    from derain_ros.engines.torch.torch_fused import MOST_CHANNELS, fuse
    from derain_ros.network.blocks import GatedBlock, gated_blocks

    blocks = fuse(gated_blocks(MOST_CHANNELS + 8, 2))
    assert [type(block) for block in blocks] == [GatedBlock] * 2
    assert isinstance(blocks, torch.nn.Sequential)


@pytest.mark.parametrize(('channels', 'capability'), [
    (40, 87), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (16, 87), (128, 87), (16, 90), (40, 90), (128, 90)))])
def test_the_kernel_compiles_for_gpus_that_are_not_here(channels, capability):
    compiler = pytest.importorskip('triton.compiler')
    target = pytest.importorskip('triton.backends.compiler').GPUTarget('cuda', capability, 32)
    import triton

    from derain_ros.engines.torch.torch_fused import _TILE, _WARPS, BOUND, REACH, _gate_and_merge

    padded = max(16, triton.next_power_of_2(channels))
    kinds = {'both': '*fp16', 'features': '*fp16', 'result': '*fp16', 'taps': '*fp32',
             'merge': '*fp16', 'merge_bias': '*fp32', 'pixels': 'i32', 'height': 'i32',
             'width': 'i32'}
    constants = {'channels': channels, 'bound': BOUND, 'reach': REACH, 'padded': padded,
                 'tile': _TILE // padded}
    source = compiler.ASTSource(
        fn=_gate_and_merge, signature=kinds | dict.fromkeys(constants, 'constexpr'),
        constexprs=constants)
    kernel = compiler.compile(source, target=target, options={'num_warps': _WARPS})
    # A block of a GPU has 48 KiB of shared memory without being asked for more.
    assert kernel.metadata.shared <= 48 << 10
    assert kernel.asm['cubin']
