"""Attention: covered keys fade, rearrangement is really a permutation."""

import pytest
import torch

from derain_ros.network.attention import (
    ClusteredAttention,
    WindowAttention,
    attend,
    counting_sort,
    from_windows,
    rearrange,
    running_counts,
    suppress,
    to_windows,
)


def test_attend_against_hand_computed_values():
    query = torch.tensor([[[1.0, 0.0]]])
    key = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    value = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # Logits 0 and 2/√2 = 1.41421; softmax 0.195570, 0.804430.
    out = attend(query, key, value, torch.zeros(1, 1, 1, 1), heads=1)
    assert out.flatten().tolist() == pytest.approx([0.195570, 0.804430], abs=1e-5)


def test_suppression_against_hand_computed_values():
    covered = torch.tensor([0.0, 0.5, 1.0])
    # Twice the logarithms of 1, 0.5 and 0.001.
    expected = [0.0, -1.386294, -13.815511]
    assert suppress(covered, torch.tensor(2.0)).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_suppression_is_finite_in_every_type(dtype):
    # Means of ones may be rounded to more than one.
    covered = torch.tensor([0.0, 0.9961, 1.0, 1.0078], dtype=dtype, requires_grad=True)
    strength = torch.ones(1, requires_grad=True)
    bias = suppress(covered, strength)
    bias.float().sum().backward()
    for values in (bias, covered.grad, strength.grad):
        assert torch.isfinite(values).all()


def test_windows_are_cut_and_joined_without_loss():
    image = torch.arange(2 * 3 * 8 * 16.0).reshape(2, 3, 8, 16)
    windows = to_windows(image)
    assert windows.shape == (8, 32, 3)
    # Second window of the first image: rows 0-3, columns 8-15.
    assert windows[1, :, 0].tolist() == image[0, 0, :4, 8:].flatten().tolist()
    assert torch.equal(from_windows(windows, 2, 8, 16), image)


def shuffled(module, features, covered, where):
    """Output change per token when the tokens of ``where`` are replaced."""
    changed = features.clone()
    changed[:, :, where] = 5 * torch.randn(
        changed[:, :, where].shape, generator=torch.Generator().manual_seed(1))
    return (module(changed, covered) - module(features, covered)).abs().amax((0, 1))


@pytest.mark.parametrize('shifted', [False, True])
def test_window_attention_fades_covered_keys(shifted):
    torch.manual_seed(0)
    module = WindowAttention(16, 2, shifted=shifted).eval()
    features = torch.randn(1, 16, 8, 16)
    where = torch.zeros(8, 16, dtype=torch.bool)
    where[2, 3] = where[5, 9] = where[5, 10] = True
    with torch.no_grad():
        torch.nn.init.constant_(module.strength, 1.0)  # 0.001 to the power 1.3: 1 in 8600
        seen = shuffled(module, features, torch.zeros(1, 1, 8, 16), where)
        faded = shuffled(module, features, where.float()[None, None], where)
    assert faded[where].min() > 0
    assert 0 < faded[~where].max() < 1e-3 * seen[~where].max()


def test_blending_leaves_dry_tokens_alone():
    torch.manual_seed(0)
    module = WindowAttention(16, 2, blend=True).eval()
    features = torch.randn(1, 16, 4, 8)
    covered = torch.zeros(1, 1, 4, 8)
    covered[..., 2, 2] = 1
    with torch.no_grad():
        change = (module(features, covered) - features).abs().amax(1)
    assert torch.count_nonzero(change) == 1
    assert change[0, 2, 2] > 0


def test_counting_sort_against_hand_computed_values():
    cluster = torch.tensor([[2, 0, 1, 0, 2, 2]])
    position, order = counting_sort(cluster, 4)
    assert position.tolist() == [[3, 0, 2, 1, 4, 5]]
    assert order.tolist() == [[1, 3, 2, 0, 4, 5]]


@pytest.mark.parametrize('length', [1, 31, 32, 33, 1024, 1025, 40000])
def test_running_counts_are_cumulative_sums(length):
    torch.manual_seed(length)
    member = torch.rand(2, 3, length) < torch.tensor([0.02, 0.5, 1.0]).reshape(3, 1)
    counts = running_counts(member)
    assert counts.dtype is torch.int32
    assert torch.equal(counts.long(), member.cumsum(2))


def test_running_counts_are_exact_in_bfloat16():
    member = torch.ones(1, 1, 9000, dtype=torch.bool)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(running_counts(member)[0, 0].long(), torch.arange(1, 9001))


@pytest.mark.parametrize('clusters', [1, 7, 16])
def test_rearrangement_is_a_permutation_with_a_true_inverse(clusters):
    torch.manual_seed(clusters)
    cluster = torch.randint(clusters, (3, 4800))
    position, order = counting_sort(cluster, clusters)
    identity = torch.arange(4800).expand(3, -1)
    assert torch.equal(position.sort(1).values, identity)
    assert torch.equal(order.gather(1, position), identity)
    assert torch.equal(order, cluster.argsort(dim=1, stable=True))
    tokens = torch.randn(3, 4800, 5)
    packed = rearrange(tokens, order)
    assert torch.equal(packed, tokens.gather(1, order.unsqueeze(2).expand(-1, -1, 5)))
    assert torch.equal(rearrange(packed, position), tokens)


def clustered(**options):
    torch.manual_seed(3)
    return ClusteredAttention(16, 2, clusters=4, **options).eval()


def test_clustered_attention_joins_alike_tokens_far_apart():
    module = clustered()
    # Four regions of alike tokens; the first and the last rows share one.
    kinds = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    module.centres.copy_(module.norm(kinds) / 4)
    rows = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 0])
    features = kinds[rows].t().reshape(1, 16, 16, 1).repeat(1, 1, 1, 16)
    features = features + 0.01 * torch.randn_like(features)
    dry = torch.zeros(1, 1, 16, 16)
    where = torch.zeros(16, 16, dtype=torch.bool)
    where[15, 8] = True
    with torch.no_grad():
        changed = features.clone()
        changed[:, :, where] *= 0.5
        changed[:, 0, where] += 0.2
        moved = (module(changed, dry) - module(features, dry)).abs().amax((0, 1))
        assert moved[0].max() > 0  # far away, of the same kind
        module.use_clusters = False
        moved = (module(changed, dry) - module(features, dry)).abs().amax((0, 1))
        assert moved[0].max() == 0  # raster order: too far away


def test_clustered_attention_fades_covered_keys():
    module = clustered()
    features = torch.randn(1, 16, 8, 16)
    where = torch.zeros(8, 16, dtype=torch.bool)
    where[3, 5] = True
    with torch.no_grad():
        # Scaled, the token keeps its cluster: only its key and value change.
        changed = features.clone()
        changed[:, :, where] = features[:, :, where] + 0.05 * torch.randn(1, 16, 1)
        module.use_clusters = False
        torch.nn.init.constant_(module.strength, 1.0)
        seen, faded = (
            (module(changed, covered) - module(features, covered)).abs().amax((0, 1))
            for covered in (torch.zeros(1, 1, 8, 16), where.float()[None, None]))
    assert faded[where].min() > 0
    assert 0 < faded[~where].max() < 1e-3 * seen[~where].max()


def test_centres_follow_the_tokens_in_training_only():
    module = clustered()
    features, dry = torch.randn(2, 16, 8, 16), torch.zeros(2, 1, 8, 16)
    before = module.centres.clone()
    module(features, dry)
    assert torch.equal(module.centres, before)
    module.train()
    tokens = module.norm(features.flatten(2).transpose(1, 2))
    closeness = (torch.nn.functional.normalize(tokens, dim=2) @ before.t()).amax(2).mean()
    for _ in range(100):
        module(features, dry)
    after = (torch.nn.functional.normalize(tokens, dim=2) @ module.centres.t()).amax(2).mean()
    assert after > closeness
    assert module.centres.norm(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert module.assign(tokens).unique().numel() == 4
