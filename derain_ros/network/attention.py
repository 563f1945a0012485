"""Attention that knows where the rain is, near by and far away.

*Rain-mask attention*: windows whose keys fade as rain covers them, so that what lies
under a streak is rebuilt from what lies beside it.

*Clustered attention*: tokens are grouped by feature similarity, rearranged so that
members of a cluster lie side by side, and a window slides over the rearranged
sequence; pixels that look alike then meet, however far apart they are.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = (4, 8)
"""Rows and columns of an attention window, in tokens. Rain-free tokens lie beside a streak
rather than along it, and streaks lie in every direction: stage 1 has wide windows, stage 2
tall ones, of as many columns as these have rows."""

_BLOCK = 32


def suppress(covered: Tensor, strength: Tensor) -> Tensor:
    """Additive attention bias that fades keys covered by rain.

    The weight of a key is multiplied by its share of dry pixels to the power ``strength``.
    A bias of the odds of rain, c / (1.001 − c), was there before: bfloat16 rounds 1.001 to 1,
    which made it infinite, and a step of float16 below full cover changed it by a third.

    ``covered``: share of a key that rain covers, 0–1, any shape. ``strength``: positive scalar.
    Returns ``strength`` · log(max(1 − c, 0.001)): 0 for a dry key, −6.9 · ``strength`` for one
    that is wholly covered; finite in any type, with ``covered`` rounded to 1 or beyond.
    """
    return strength * torch.log((1 - covered).clamp(min=1e-3))


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Multi-head scaled dot-product attention.

    ``query``: B×Q×C. ``key``, ``value``: B×K×C. ``bias``: added to the logits, broadcast to
    B×heads×Q×K. ``heads``: number of heads; divides C. Returns B×Q×C.
    """
    batch, _, channels = query.shape
    split = (batch, -1, heads, channels // heads)
    query, key, value = (x.reshape(split).transpose(1, 2) for x in (query, key, value))
    scale = (channels // heads) ** -0.5
    weights = torch.softmax((query * scale) @ key.transpose(2, 3) + bias, -1)
    return (weights @ value).transpose(1, 2).reshape(batch, -1, channels)


def to_windows(image: Tensor, size: tuple[int, int] = WINDOW) -> Tensor:
    """Cut N×C×H×W into windows, (N·H/4·W/8)×32×C; H and W are multiples of the window."""
    batch, channels, height, width = image.shape
    rows, columns = size
    # Channels last first: engines that compute in that layout then move whole pixels.
    last = image.permute(0, 2, 3, 1)
    cut = last.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return cut.transpose(2, 3).reshape(-1, rows * columns, channels)


def from_windows(
    windows: Tensor, batch: int, height: int, width: int, size: tuple[int, int] = WINDOW
) -> Tensor:
    """Join windows to N×C×H×W, the inverse of :func:`to_windows`."""
    rows, columns = size
    cut = windows.reshape(batch, height // rows, width // columns, rows, columns, -1)
    return cut.transpose(2, 3).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Rain-mask attention within windows of 4×8 or 8×4 tokens (``tall``), added to its input.

    ``shifted`` moves the windows by half their size; tokens beyond the border count as covered by
    rain. ``loose`` windows may reach beyond it without being moved, so that H and W may be any.
    ``use_mask`` fades keys by the rain that covers them, else attention is ordinary; ``blend``
    adds the result only as far as rain covers the token itself.

    Input: features N×C×H×W, unless ``loose`` in whole windows; covered N×1×H×W in 0–1. Output:
    N×C×H×W.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        tall: bool = False,
        shifted: bool = False,
        loose: bool = False,
        use_mask: bool = True,
        blend: bool = False,
    ) -> None:
        super().__init__()
        tokens = WINDOW[0] * WINDOW[1]
        self.heads = heads
        self.size = WINDOW[::-1] if tall else WINDOW
        self.shifted = shifted
        self.loose = loose
        self.use_mask = use_mask
        self.blend = blend
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.merge = nn.Linear(channels, channels)
        self.position = nn.Parameter(torch.zeros(1, heads, tokens, tokens))
        self.strength = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.merge.weight, std=0.02)

    def forward(self, features: Tensor, covered: Tensor) -> Tensor:
        """Attend; see the class for shapes."""
        batch, _, height, width = features.shape
        keep = functional.softplus(self.strength)
        bias = suppress(covered, keep) if self.use_mask else torch.zeros_like(covered)
        (rows, columns), tokens = self.size, features
        down, right = (rows // 2, columns // 2) if self.shifted else (0, 0)
        # Whole windows over the moved picture.
        tall, wide = ((side + 2 * move + size - 1) // size * size for side, move, size in (
            (height, down, rows), (width, right, columns)))
        if self.shifted or self.loose:
            border = (right, wide - width - right, down, tall - height - down)
            tokens = functional.pad(features, border)
            bias = functional.pad(bias, border, value=-1000.0)
        bias = to_windows(bias, self.size).transpose(1, 2).unsqueeze(1)
        windows = self.norm(to_windows(tokens, self.size))
        query, key, value = self.query(windows), self.key(windows), self.value(windows)
        mixed = attend(query, key, value, self.position + bias, self.heads)
        mixed = from_windows(self.merge(mixed), batch, tall, wide, self.size)
        mixed = mixed[:, :, down : down + height, right : right + width]
        return features + (mixed * covered if self.blend else mixed)


def counting_sort(cluster: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Stable sort of tokens by cluster, without a comparison sort.

    TensorRT refuses TopK over more than 3840 elements, which an exported argsort becomes.

    ``cluster``: cluster index of each token, int64, N×T, values below ``clusters``. ``clusters``:
    number of clusters. Returns ``position`` (Tensor): where each token goes in the rearranged
    sequence, int64, N×T. Returns ``order`` (Tensor): which token each place of the rearranged
    sequence takes, int64, N×T; the inverse permutation of ``position``.
    """
    member = cluster.unsqueeze(1) == torch.arange(clusters, device=cluster.device).view(1, -1, 1)
    rank = running_counts(member)
    start = _sums_before(rank[:, :, -1])
    position = ((start.unsqueeze(2) + rank - 1) * member.to(torch.int32)).sum(1)
    tokens = torch.arange(cluster.shape[1], device=cluster.device).expand_as(cluster)
    order = torch.zeros_like(cluster).scatter(1, position, tokens)
    return position, order


def running_counts(member: Tensor) -> Tensor:
    """Count, along the last axis, how many are true up to each place.

    By blocks and not by cumsum: TensorRT before 10.8 makes a loop of that, one step a token,
    and later ones are known to mix up sums along different axes
    (https://github.com/NVIDIA/TensorRT/issues/4551).

    ``member``: boolean, N×K×T. Returns int32, N×K×T, each place counted itself.
    """
    blocks = _cut(member.float(), _BLOCK)
    # No count within a block is too large for an engine that computes in bfloat16.
    within = (blocks @ torch.ones(_BLOCK, _BLOCK, device=member.device).triu()).to(torch.int32)
    totals = within[..., -1]
    groups = _cut(totals, _BLOCK)
    near = _sums_before(groups)
    far = _sums_before(groups.sum(3, dtype=torch.int32))
    before = (near + far.unsqueeze(3)).flatten(2)[:, :, : totals.shape[2]]
    return (within + before.unsqueeze(3)).flatten(2)[:, :, : member.shape[2]]


def _cut(values: Tensor, size: int) -> Tensor:
    """Cut N×K×T into blocks, N×K×B×size; the last value is repeated until they are whole."""
    length = values.shape[2]
    index = torch.arange((length + size - 1) // size * size, device=values.device)
    whole = values.index_select(2, index.clamp(max=length - 1))
    return whole.reshape(values.shape[0], values.shape[1], -1, size)


def _sums_before(values: Tensor) -> Tensor:
    """Sum, along the last axis, what comes before each place; int32, in whole numbers."""
    index = torch.arange(values.shape[-1], device=values.device)
    earlier = (index < index.unsqueeze(1)).to(torch.int32)
    return (values.unsqueeze(-2) * earlier).sum(-1, dtype=torch.int32)


def rearrange(tokens: Tensor, index: Tensor) -> Tensor:
    """Take tokens N×T×C in the order of ``index``, int64 N×T."""
    batch, length, channels = tokens.shape
    first = torch.arange(batch, device=index.device).unsqueeze(1) * length
    rows = (index + first).reshape(-1)
    return tokens.reshape(-1, channels).index_select(0, rows).reshape(batch, length, channels)


class ClusteredAttention(nn.Module):
    """Non-local attention over tokens rearranged by feature cluster, added to its input.

    Cluster centres follow the normalised tokens by mini-batch k-means in training (exponential
    moving average; an empty cluster is seeded anew from a token) and stay fixed at inference, so
    that inference is deterministic. ``group`` is the number of tokens in a step of the sliding
    window, which divides H·W; queries of one group see the keys of it and of both neighbours.
    ``use_mask`` fades keys by the rain that covers them; without ``use_clusters`` the window
    slides over the tokens in raster order.

    Input: features N×C×H×W, covered N×1×H×W in 0–1. Output: N×C×H×W.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        clusters: int = 16,
        group: int = 32,
        use_mask: bool = True,
        use_clusters: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.group = group
        self.use_mask = use_mask
        self.use_clusters = use_clusters
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.merge = nn.Linear(channels, channels)
        self.strength = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.merge.weight, std=0.02)
        centres = functional.normalize(torch.randn(clusters, channels), dim=1)
        self.register_buffer('centres', centres)
        self.register_buffer('share', torch.full((clusters,), 1 / clusters))

    def assign(self, tokens: Tensor) -> Tensor:
        """Nearest centre by cosine similarity of each token, N×T×C to int64 N×T."""
        return (tokens @ self.centres.t()).argmax(-1)

    def forward(self, features: Tensor, covered: Tensor) -> Tensor:
        """Attend; see the class for shapes."""
        batch, channels, height, width = features.shape
        tokens = self.norm(features.flatten(2).transpose(1, 2))
        bias = suppress(covered, functional.softplus(self.strength)).reshape(batch, -1, 1)
        if not self.use_mask:
            bias = torch.zeros_like(bias)
        if self.use_clusters:
            cluster = self.assign(tokens)
            if self.training:
                self._follow(tokens.detach(), cluster)
            position, order = counting_sort(cluster, self.centres.shape[0])
            tokens, bias = rearrange(tokens, order), rearrange(bias, order)
        mixed = self.merge(self._slide(tokens, bias))
        if self.use_clusters:
            mixed = rearrange(mixed, position)
        return features + mixed.transpose(1, 2).reshape(batch, channels, height, width)

    def _slide(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Sliding-window attention over a sequence, N×T×C with bias N×T×1 to N×T×C."""
        batch, _, channels = tokens.shape
        cut = (batch, -1, self.group, channels)
        query = self.query(tokens).reshape(-1, self.group, channels)
        key = self._neighbours(self.key(tokens).reshape(cut), 0.0)
        value = self._neighbours(self.value(tokens).reshape(cut), 0.0)
        bias = self._neighbours(bias.reshape(batch, -1, self.group, 1), -1000.0)
        mixed = attend(query, key, value, bias.transpose(1, 2).unsqueeze(1), self.heads)
        return mixed.reshape(batch, -1, channels)

    def _neighbours(self, groups: Tensor, outside: float) -> Tensor:
        """Join each group to both neighbours, N×S×G×C to (N·S)×3G×C."""
        padded = functional.pad(groups, (0, 0, 0, 0, 1, 1), value=outside)
        first = torch.arange(groups.shape[1], device=groups.device).unsqueeze(1)
        each = (first + torch.arange(3, device=groups.device)).flatten()
        return padded.index_select(1, each).reshape(-1, 3 * self.group, groups.shape[-1])

    @torch.no_grad()
    def _follow(self, tokens: Tensor, cluster: Tensor, decay: float = 0.99) -> None:
        """Move the centres towards the tokens assigned to them, in float32."""
        tokens, cluster = tokens.reshape(-1, tokens.shape[-1]).float(), cluster.reshape(-1)
        clusters = self.centres.shape[0]
        directions = functional.normalize(tokens, dim=1)
        member = functional.one_hot(cluster, clusters).to(tokens)
        size = member.sum(0)
        with torch.autocast(tokens.device.type, enabled=False):
            mean = functional.normalize(member.t() @ directions, dim=1)
        present = (size > 0).unsqueeze(1)
        moved = torch.where(present, torch.lerp(mean, self.centres, decay), self.centres)
        self.share.lerp_(size / len(tokens), 1 - decay)
        empty = self.share < 0.1 / clusters
        drawn = directions[torch.randint(len(directions), (clusters,), device=tokens.device)]
        moved = torch.where(empty.unsqueeze(1), drawn, moved)
        self.share.masked_fill_(empty, 1 / clusters)
        self.centres.copy_(functional.normalize(moved, dim=1))
