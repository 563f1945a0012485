"""The dual-stage deraining network and its variants.

Stage 1 suppresses rain streaks: a mask from morphology shuts features out and steers
windowed attention away from rain, which leaves a coarse background. Stage 2
reconstructs detail: local windows, and then attention over tokens clustered
by similarity. After Hou et al., "Dual-stage deraining network based on mask and
non-local attention", J. Zhejiang Univ. (Eng. Sci.) 60(4), 2026, 791-799.
"""

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from derain_ros.network.attention import ClusteredAttention, WindowAttention
from derain_ros.network.blocks import (
    Overview,
    SubpixelConv,
    TokenLevel,
    gated_blocks,
    order_by_pixel,
    plain_blocks,
    reach,
    unfold,
)
from derain_ros.network.rain_mask import DryFill, RainMaskHead, StreakResponse, halve
from derain_ros.network.second_look import SecondLook

SIZE_MULTIPLE = {1: (32, 64), 2: (32, 128)}
"""Height and width are padded to multiples of these, by ``unit``.

The first are windows of 4×8 tokens of 8×8 pixels; of the larger tokens two rows will do, as their
windows are padded once more: 480 rows stay 480.
"""

MASK_ODDS = 2.2
"""See :func:`shown_mask`: a chance of rain of 5 in 16 is ½ in the mask."""


class Restoration(NamedTuple):
    """What the network makes of a rainy image.

    Attributes
    ----------
    restored
        Output of stage 2, BGR, N×3×H×W; not clamped, about 0–1.
    coarse
        Coarse background of stage 1, like ``restored``.
    mask_logits
        Rain mask before the sigmoid, N×1×H×W.
    streak_logits
        The mask that steers attention: like ``mask_logits``, but made before stage 1,
        from the neighbourhood of each pixel alone.

    """

    restored: Tensor
    coarse: Tensor
    mask_logits: Tensor
    streak_logits: Tensor


@dataclass(frozen=True)
class DualStageConfig:
    """Size of the network, and the parts that can be switched off for ablation.

    Attributes
    ----------
    stem, cell, token
        Channels at a half, a quarter and an eighth of the resolution.
    half_blocks
        Convolution blocks at half the resolution, after the stem and before the last
        convolution of stage 2.
    stage1_blocks, stage2_blocks
        Convolution blocks at a quarter of the resolution, before and after the
        attention of each stage.
    token_blocks
        Convolution blocks at an eighth of the resolution, before and after the
        attention of each stage.
    heads
        Attention heads; divides ``token``.
    clusters
        Feature clusters of the non-local attention.
    mask_attention
        Rain replaces features by a learned token, fades attention keys, and says how far the
        attention of stage 1 counts.
    morphology
        The mask starts from the oriented streak response; without it the mask head
        works from the features alone.
    clustering
        Non-local attention; without it local windows stand in its place.
    stage2
        Detail reconstruction; without it the coarse background is the result.
    past
        Channels of the features of the frame before; 0 for a network of single frames.
    unit
        1, or 2 for a network of which all but the stem and the last detail works at half the
        resolution told elsewhere: squares of 2×2 pixels take the place of pixels. The blocks of
        ``half_blocks`` before the last convolution are then plain.
    overview
        Features that are averaged over the whole picture after stage 1; 0 for none.

    """

    stem: int = 16
    cell: int = 32
    token: int = 64
    half_blocks: tuple[int, int] = (0, 0)
    stage1_blocks: tuple[int, int] = (1, 0)
    stage2_blocks: tuple[int, int] = (0, 1)
    token_blocks: tuple[int, int] = (1, 0)
    heads: int = 2
    clusters: int = 16
    mask_attention: bool = True
    morphology: bool = True
    clustering: bool = True
    stage2: bool = True
    past: int = 0
    unit: int = 1
    overview: int = 0


VARIANTS = {
    'nano': DualStageConfig(
        cell=40,
        token=80,
        half_blocks=(0, 1),
        stage1_blocks=(1, 1),
        stage2_blocks=(1, 2),
        token_blocks=(2, 1),
        overview=64,
    ),
    'base': DualStageConfig(
        stem=32,
        cell=64,
        token=128,
        half_blocks=(1, 2),
        stage1_blocks=(2, 1),
        stage2_blocks=(1, 2),
        token_blocks=(2, 2),
        heads=4,
        clusters=32,
        overview=64,
    ),
    'large': DualStageConfig(
        stem=64,
        cell=192,
        token=384,
        half_blocks=(2, 4),
        stage1_blocks=(4, 4),
        stage2_blocks=(4, 6),
        token_blocks=(8, 8),
        heads=8,
        clusters=64,
        overview=64,
    ),
}
VARIANTS['pico'] = replace(VARIANTS['nano'], unit=2)
VARIANTS |= {f'{name}-t': replace(VARIANTS[name], past=24) for name in ('nano', 'base')}
"""Network sizes by name: ``pico`` for CPUs without bf16, ``nano`` for CPUs and the Jetson Orin
Nano class, ``base`` for Jetson Orin and desktop GPUs, ``large`` for quality without a deadline.
``-t`` names the form for streams, which looks at the frame before as well."""


class DualStageNetwork(nn.Module):
    """Remove rain from images.

    Parameters
    ----------
    config
        Sizes and switches.

    Shape
    -----
    Input: BGR in 0–1, N×3×H×W with H and W of at least 32; for a network with ``past`` also a
    state, N×4×H×W (:mod:`derain_ros.network.second_look`), or None. Output:
    :class:`Restoration` of the same size.

    """

    def __init__(self, config: DualStageConfig | None = None) -> None:
        super().__init__()
        config = config or DualStageConfig()
        self.config = config
        stem, cell, token = config.stem, config.cell, config.token
        options = {'use_mask': config.mask_attention}
        unit = config.unit
        if unit > 1 and config.past:
            raise ValueError('a network with past has a unit of 1')

        self.response = StreakResponse(unit=unit) if config.morphology else None
        self.stem = nn.Conv2d(3, stem, 3, stride=2, padding=1)
        self.half_before = gated_blocks(stem, config.half_blocks[0])
        self.cells = nn.Conv2d(stem, cell, 3 * unit, stride=2 * unit, padding=unit)
        if config.morphology:
            self.streaks = nn.Conv2d(1 + len(self.response.angles), cell, 1)
            self.fill = DryFill(unit=unit)
            self.filled = nn.Conv2d(3, cell, 1, bias=False)
            nn.init.zeros_(self.filled.weight)
        before, after = config.stage1_blocks
        self.stage1_before = gated_blocks(cell, before)
        self.mask_head = RainMaskHead(cell, use_response=config.morphology, unit=unit)
        self.shut = nn.Parameter(torch.full((1, cell, 1, 1), -2.0))
        self.mask_token = nn.Parameter(torch.zeros(1, cell, 1, 1))
        self.stage1_tokens = TokenLevel(
            cell,
            token,
            config.token_blocks,
            [WindowAttention(
                token, config.heads, blend=config.mask_attention, loose=unit > 1, **options)],
        )
        self.stage1_after = gated_blocks(cell, after)
        if config.overview:
            self.overview = Overview(token, config.overview, 2 * cell + 1)
        self.coarse = _zeroed(nn.Conv2d(cell, 48 * unit**2, 1))
        self.mask_detail = _zeroed(nn.Conv2d(cell, 16 * unit**2, 1))

        if config.stage2:
            before, after = config.stage2_blocks
            if config.clustering:
                far = ClusteredAttention(
                    token, config.heads, clusters=config.clusters, group=32 // unit, **options
                )
            else:
                far = WindowAttention(token, config.heads, loose=unit > 1, **options)
            tall = WindowAttention(token, config.heads, tall=True, shifted=True, **options)
            attentions = [tall, far]
            self.stage2_before = gated_blocks(cell, before)
            self.stage2_tokens = TokenLevel(cell, token, config.token_blocks, attentions)
            self.stage2_after = gated_blocks(cell, after)
            self.up = SubpixelConv(cell, stem, 2 * unit)
            blocks = gated_blocks if unit == 1 else plain_blocks
            self.half_after = blocks(stem, config.half_blocks[1])
            self.fine = _zeroed(nn.Conv2d(stem, 12, 3, padding=1))
            if unit > 1:  # large cells tell little of where in them the rain is
                self.mask_fine = _zeroed(nn.Conv2d(stem, 4, 1))
        if config.past:
            self.second_look = SecondLook(config.past, cell)

    def forward(self, image: Tensor, state: Tensor | None = None) -> Restoration:
        """Restore; see the class for shapes.

        Raises
        ------
        ValueError
            The image is not N×3×H×W.

        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f'expected N×3×H×W, got {tuple(image.shape)}')
        height, width = image.shape[2:]
        unit = self.config.unit
        image = pad_to_multiple(image, (2, 3), unit)
        if state is not None:
            state = pad_to_multiple(state, (2, 3), unit)
        past = () if state is None else (image - state[:, :3], state)
        coarse, detail, mask, finer, streaks, trust = self.residuals(image, *past)

        def crop(full: Tensor) -> Tensor:
            return full[:, :, :height, :width]

        mask = functional.pixel_shuffle(mask, 4 * unit)
        coarse = functional.pixel_shuffle(functional.pixel_shuffle(coarse, 2), 2 * unit)
        correction = coarse
        if detail is not None:
            correction = coarse + functional.pixel_shuffle(detail, 2)
        if finer is not None:
            mask = mask + functional.pixel_shuffle(finer, 2)
        if trust is not None:
            trust = functional.pixel_shuffle(trust, 4)
            correction = correction - trust * (past[0] + correction)
        return Restoration(
            crop(image + correction * correction_share(torch.sigmoid(mask))),
            crop(image + coarse),
            crop(mask),
            crop(functional.pixel_shuffle(streaks, 4 * unit)),
        )

    def residuals(
        self, image: Tensor, change: Tensor | None = None, state: Tensor | None = None, *,
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor, Tensor | None]:
        """Run both stages on an image as of :meth:`forward`, with sides of :data:`SIZE_MULTIPLE`.

        ``change`` and ``state`` are as for :class:`derain_ros.network.second_look.SecondLook`,
        None for a single frame; ``scale`` is the largest value of all: 1, or 255 where the weights
        are scaled. Returns ``coarse``, the coarse background less the image, folded twice:
        N×48×H/4×W/4; ``detail``, what stage 2 adds to it before the :func:`correction_share`,
        folded: N×12×H/2×W/2, or None; ``mask_logits``, folded to N×16×H/4×W/4, and what
        a unit of 2 adds to them, N×4×H/2×W/2, or None; ``streak_logits``, like ``mask_logits``;
        and ``trust``, how far the state takes the place of the result, 0–1, likewise, or None
        without one. :func:`torch.nn.functional.pixel_shuffle` unfolds all of them.
        """
        response = self.response(image) if self.config.morphology else None
        stem = self.half_before(functional.relu(self.stem(image)))
        cells = self.cells(stem)
        if response is not None:
            strong = halve(response)
            cells = cells + self.streaks(strong)
            cells = cells + self.filled(self.fill(image, strong[:, :1]))
        past = None
        if change is not None:
            thin = None if response is None else response[:, :1]
            past, known, trusted, rained = self.second_look(change, state, thin, scale=scale)
            cells = cells + self.second_look.to_cells(past)
        cells = self.stage1_before(functional.relu(cells))
        logits = self.mask_head(cells, response)
        if past is not None:
            logits = logits + self.second_look.to_streaks(past)
        rain = torch.sigmoid(logits).mean(1, keepdim=True)
        covered = functional.avg_pool2d(rain, 2)
        if self.config.mask_attention:
            shut = rain * torch.sigmoid(self.shut)
            cells = cells + shut * (self.mask_token - cells)
        cells, tokens = self.stage1_tokens(cells, covered)
        if self.config.overview:
            slope, shift, rainy = self.overview(tokens).split(
                [cells.shape[1], cells.shape[1], 1], 1)
            cells = reach(cells + cells * slope + shift)
        cells = self.stage1_after(cells)
        coarse, detail, finer = self.coarse(cells), None, None
        if past is not None:
            cells = cells + self.second_look.to_detail(past)
        if self.config.stage2:
            cells, _ = self.stage2_tokens(self.stage2_before(cells), covered, tokens)
            cells = self.stage2_after(cells)
            half = self.half_after(functional.relu(self.up(cells) + stem))
            detail = self.fine(half)
            if self.config.unit > 1:
                finer = self.mask_fine(half)
        mask, trust = logits + self.mask_detail(cells), None
        if self.config.overview:
            mask = mask + rainy
        if past is not None:
            mask = mask + self.second_look.to_mask(past) + rained
            trust = self.second_look.gate(cells) + self.second_look.past_gate(past) + trusted
            trust = torch.sigmoid(trust) * known
        return coarse, detail, mask, finer, logits, trust


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """Start a residual at zero, so that an untrained network returns its input."""
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution


def correction_share(chance: Tensor) -> Tensor:
    """How far the correction of stage 2 passes, 0–1: the odds of rain, of any shape, times three.

    Where the network is sure that it is dry the image comes back as it was; a pixel with one
    chance in four of rain is already corrected by half.
    """
    return _multiply_odds(chance, 3)


def shown_mask(chance: Tensor) -> Tensor:
    """Rain mask that is published, 0–1: the odds of rain, of any shape, times :data:`MASK_ODDS`.

    From ½ on a pixel counts as rain. F1 is best if it counts from half of the attained F1 on
    (Lipton et al. 2014, arXiv:1402.1892), which is 0.5 to 0.8 in rain that drivers notice.
    """
    return _multiply_odds(chance, MASK_ODDS)


def _multiply_odds(chance: Tensor, factor: float) -> Tensor:
    return factor * chance / (1 + (factor - 1) * chance)


def pad_to_multiple(image: Tensor, axes: tuple[int, int], unit: int = 1) -> Tensor:
    """Pad at the bottom and right to a multiple of :data:`SIZE_MULTIPLE`.

    Mirrored: a repeated row or column would turn the streaks that it cuts into broad bars, which
    look dry. ``image`` has four axes in any layout, of which ``axes`` are height and width, at
    least 32.
    """
    for axis, multiple in zip(axes, SIZE_MULTIPLE[unit], strict=True):
        side = image.shape[axis]
        index = torch.arange((side + multiple - 1) // multiple * multiple, device=image.device)
        index = torch.minimum(index, 2 * side - 1 - index)
        if unit > 1:  # the smallest images are mirrored three times
            index = torch.maximum(index, -1 - index)
            index = torch.minimum(index, 2 * side - 1 - index)
        image = image.index_select(axis, index)
    return image


class DeployedNetwork(nn.Module):
    """The network as engines run it: bytes in, bytes out.

    What the network folds is unfolded straight to the layout of the image, which moves each
    pixel once.

    Parameters
    ----------
    network
        Copied, not changed.
    half
        Compute in float16. The residual is added to the image in float32, where a level
        of 255 is exact.

    Shape
    -----
    Input: BGR in 0–255, uint8, N×H×W×3, and for a network with ``past`` the state, uint8,
    N×H×W×4, which a torch caller may leave out. Output: ``derained`` like the input, and
    ``rain_mask``, uint8, N×H×W, 255 = rain.

    """

    def __init__(self, network: DualStageNetwork, *, half: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        # Scaled weights in place of a scaled image.
        self.network.stem.weight.data /= 255
        if self.network.config.morphology:
            self.network.response.luminance /= 255
            self.network.fill.mean /= 255
        if self.network.config.past:
            for convolution in (self.network.second_look.look, self.network.second_look.pixels):
                convolution.weight.data /= 255
        # Channels lie pixel by pixel.
        for module in self.network.modules():
            if isinstance(module, SubpixelConv):
                module.deploy()
        self.unit = self.network.config.unit
        order_by_pixel(self.network.coarse, 2, 2 * self.unit)
        if self.network.config.stage2:
            order_by_pixel(self.network.fine, 2)
        self.half_precision = half
        if half:
            self.network.half()

    def forward(self, image: Tensor, state_in: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Derain; see the class for shapes."""
        height, width = image.shape[1:3]
        given = [image] if state_in is None else [image, state_in]
        # TensorRT does not slice bytes.
        padded, *past = (pad_to_multiple(each.float(), (1, 2), self.unit) for each in given)
        if past:
            # OpenVINO multiplies faster than it slices, which it does pixel by pixel.
            past.insert(0, padded - past[0] @ torch.eye(4, 3, device=image.device))
        features = ((each.half() if self.half_precision else each).permute(0, 3, 1, 2)
                    for each in (padded, *past))
        coarse, detail, logits, finer, _, trust = self.network.residuals(*features, scale=255)
        # One kernel in OpenVINO, which would move an unfolded sum of convolutions twice.
        mask = functional.pixel_shuffle(logits, 4 * self.unit)
        if finer is not None:
            mask = mask + functional.pixel_shuffle(finer, 2)
        correction = unfold(coarse, 4 * self.unit).float()
        if detail is not None:
            correction = correction + unfold(detail, 2).float()
        chance = torch.sigmoid(mask).float().permute(0, 2, 3, 1)
        if trust is not None:
            trust = unfold(trust, 4).float()
            correction = correction - trust * (past[0] / 255 + correction)
        outputs = (padded + 255 * (correction * correction_share(chance)),
                   255 * shown_mask(chance).squeeze(3))
        return tuple(_to_bytes(x[:, :height, :width]) for x in outputs)


def _to_bytes(image: Tensor) -> Tensor:
    """Round 0–255 to uint8; the cast comes last, as TensorRT moves no bytes about."""
    return (image.clamp(0, 255) + 0.5).to(torch.uint8)
