"""Files of weights: checkpoints of a run, and weights to start from."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from derain_ros.network.dual_stage import DualStageNetwork
from derain_ros.training.config import ConfigError

_PARTS = {'step', 'network', 'average', 'optimizer'}


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint, onto the CPU.

    Raises ConfigError: the file is damaged or is no checkpoint of a run.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ConfigError(f'{path}: damaged, or not a checkpoint; move it away to start again'
                          ) from error
    if not isinstance(state, dict) or _PARTS - state.keys():
        raise ConfigError(f'{path}: not a checkpoint of a run; move it away to start again')
    return state


def _with_unit(network: DualStageNetwork, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn weights of a unit of 1 into those of a network of a larger one; most are the same."""
    unit = network.config.unit

    def repeated(planes: Tensor, axis: int) -> Tensor:
        return planes.repeat_interleave(unit, axis).repeat_interleave(unit, axis + 1)

    # Blocks at half the resolution are of another kind there, and stay as they were made.
    left_out = ('half_after.', *(() if network.config.overview else ('overview.',)))
    turned = {
        **{name: each for name, each in weights.items() if not name.startswith(left_out)},
        **{name: each for name, each in network.state_dict().items()
           if name.startswith('half_after.')}}
    turned['cells.weight'] = repeated(weights['cells.weight'], 2) / unit**2
    # Rows and columns of pixels lie in the channels, behind the colours or features.
    stem = network.config.stem
    for prefix, outer, side in (('coarse.', 3, 2), ('up.', stem, 2), ('mask_detail.', 1, 4),
                                ('mask_head.head.', 1, 4), ('mask_head.prior.', 1, 4)):
        for name, each in weights.items():
            if name.startswith(prefix):
                planes = each.reshape(outer, side, side, -1, *each.shape[1:])
                turned[name] = repeated(planes, 1).reshape(-1, *each.shape[1:])
    return turned


def fit_weights(network: DualStageNetwork, weights: dict[str, Tensor]) -> list[str]:
    """Load weights of this network, or of an earlier one that it extends.

    ``network``: as it was made: what the weights lack and starts at zero changes nothing, so it
    stays, and so do the second look and the overview, which add nothing at first; a larger unit
    starts from the weights of a unit of 1, about as good. ``weights``: by name. Returns
    names of the parameters that stay as they were made. Raises RuntimeError: the weights do not
    fit.
    """
    cells = weights.get('cells.weight')
    if network.config.unit > 1 and cells is not None and cells.shape[2] == 3:
        weights = _with_unit(network, weights)
    new = [
        name for name, value in network.named_parameters()
        if name not in weights
        and (name.startswith(('second_look.', 'overview.')) or not value.any())
    ]
    kept = {name: network.get_parameter(name).detach() for name in new}
    try:
        network.load_state_dict({**kept, **weights})
    except RuntimeError as error:
        # One line of what may be hundreds.
        reasons = str(error).splitlines()[1:] or [str(error)]
        raise RuntimeError(reasons[-1].strip()[:160]) from error
    return new


def fit_optimizer(
    optimizer: torch.optim.Optimizer, state: dict, names: list[str], earlier: list[str]
) -> None:
    """Load the state of an optimizer, whichever network, implementation or layout wrote it.

    A state dict numbers the parameters, and carries the implementation with it; fused
    kernels take the moments to lie in memory as the weights do.

    ``optimizer``: of one group. ``state``: its state dict. ``names``, ``earlier``: names of the
    parameters now, and when the state was written, in order. Raises ValueError, IndexError: the
    state does not fit.
    """
    [saved], [ours] = state['param_groups'], optimizer.param_groups
    own = ('fused', 'foreach', 'capturable')
    group = {**saved, **{name: ours[name] for name in own}, 'params': list(range(len(names)))}
    moments = {names.index(earlier[index]): kept for index, kept in state['state'].items()}
    optimizer.load_state_dict({'state': moments, 'param_groups': [group]})
    # Not a copy of it: the learning rate is set from outside.
    optimizer.param_groups[0]['lr'] = ours['lr']
    for weights, kept in optimizer.state.items():
        for name, value in kept.items():
            if value.shape == weights.shape and value.stride() != weights.stride():
                kept[name] = torch.empty_like(weights).copy_(value)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network from ``.safetensors`` or from a checkpoint.

    Of a checkpoint, the averaged weights count, with the cluster centres of its network.

    Raises ConfigError: the file is missing, damaged or neither of both.
    """
    if not path.is_file():
        raise ConfigError(f'init: {path}: no such file; give a .safetensors file or a checkpoint')
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConfigError(f'init: {path}: damaged: {error}') from error
    state = load_checkpoint(path)
    prefix = 'module.'
    averaged = {
        name.removeprefix(prefix): value
        for name, value in state['average'].items()
        if name.startswith(prefix)
    }
    buffers = {'centres', 'share'}
    centres = {n: v for n, v in state['network'].items() if n.rpartition('.')[2] in buffers}
    return {**averaged, **centres}
