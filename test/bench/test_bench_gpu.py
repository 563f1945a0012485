"""The benchmark of engines on a GPU: costs, floors, peer and bars, as far as a CPU shows them.

What is not asserted: any speed, which depends on the machine and on what else it does.
"""

import json
import math
from xml.etree import ElementTree

import pytest
import torch

from derain_ros.bench.engine_scenario import (
    Ceilings,
    EngineTiming,
    LayerCost,
    NetworkCost,
    assemble,
    measure_ceilings,
    median_and_p95,
    network_cost,
    time_calls,
)
from derain_ros.bench.prenet import PReNet
from derain_ros.cli import main
from derain_ros.engines.models import find_model
from derain_ros.engines.torch.torch_engine import untrained

# 1 TFLOP/s, 100 GB/s; a frame of 1 MB goes up in 0.1 ms and down in 0.2 ms.
CEILINGS = Ceilings('a GPU', 100e9, 10e9, 5e9, {'f16': 1e12, 'f32': 1e11})
COST = NetworkCost(
    flops=3 * 10**9, input_size=10**6, weights_size=2 * 10**6, output_size=10**6,
    layers=(LayerCost(2 * 10**9, 10**8), LayerCost(10**9, 5 * 10**8)))


def _timing(model='base', precision='f16', size=(1920, 1080), *, on_gpu=True, ms=4.0):
    return EngineTiming('torch', 'a GPU', model, precision, on_gpu, *size, 9, ms, ms + 1,
                        ms - 1 if on_gpu else math.nan, ms if on_gpu else math.nan)


def _peer(precision='f16', size=(1920, 1080), ms=100.0):
    return EngineTiming('PReNet', 'a GPU', '', precision, True, *size, 9, ms, ms, ms - 1, ms)


# Times

def test_calls_are_timed_after_a_warm_up():
    calls = []
    times = time_calls(lambda: calls.append(1), 0)
    assert len(times) == 5 and len(calls) == 8 and min(times) >= 0
    assert median_and_p95([1, 2, 3, 4, 5]) == (3, pytest.approx(4.8))
    assert all(map(math.isnan, median_and_p95([])))


# Costs, against numbers worked out by hand

def test_the_cost_of_a_convolution():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.only = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, image):
            return (self.only(image.permute(0, 3, 1, 2).float()).to(torch.uint8),)

    cost = network_cost(One, 8, 6)
    multiplied = 4 * 3 * 9 * 8 * 6
    assert cost.flops == 2 * multiplied
    assert (cost.input_size, cost.output_size) == (3 * 48, 4 * 48)
    assert cost.weights_size == 4 * (4 * 27 + 4)
    layer, = cost.layers
    assert layer == LayerCost(cost.flops, 4 * (3 * 48 + 4 * 48) + cost.weights_size)
    assert cost.ideal_size == 7 * 48 + cost.weights_size
    assert cost.layers_size == 7 * 48 + layer.size


@pytest.mark.parametrize(('name', 'channels'), [('nano', [3]), ('base', [3]), ('nano-t', [3, 4])])
def test_the_cost_of_our_network_is_that_of_its_card(name, channels):
    model = find_model(name)
    cost = network_cost(lambda: untrained(model.variant, 'f16'), 640, 480, channels)
    assert cost.input_size == 640 * 480 * sum(channels)
    # The colours of a state are taken by a product with a 4×3 matrix.
    product = 24 * (len(channels) - 1)
    assert round(cost.flops / (640 * 480)) == model.flops_per_pixel + product
    # A hundredth or so of the rest is what no layer does: products of attention, morphology.
    assert 0.9 * cost.flops < sum(layer.flops for layer in cost.layers) < cost.flops
    assert cost.weights_size == 2 * model.parameters
    whole = network_cost(lambda: untrained(model.variant, 'f32'), 640, 480)
    assert whole.weights_size == 4 * model.parameters


# The peer

def test_the_peer_is_what_was_published():
    network = PReNet().eval()
    # Weights of the published network: one recursion, its four gates side by side.
    assert sum(x.numel() for x in network.parameters()) == 168_963
    image = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found, = network(image)
        assert (found.shape, found.dtype) == (image.shape, torch.uint8)
        assert not torch.equal(found, image)
        # Without its last convolution it returns its input.
        torch.nn.init.zeros_(network.last.weight)
        torch.nn.init.zeros_(network.last.bias)
        found, = network(image)
    assert torch.equal(found, image) and found.is_contiguous()


# Ceilings, on the CPU

def test_ceilings_are_measured():
    found = measure_ceilings(
        ['f32', 'bf16'], device='cpu', copied=1 << 16, frame=1 << 12, side=64)
    assert found.device == 'CPU'
    assert min(found.copy, found.upload, found.download) > 1e6
    assert set(found.products) == {'f32', 'bf16'} and min(found.products.values()) > 1e6
    assert torch.get_float32_matmul_precision() == 'highest'


# Figures and bars

def _bars(measured):
    return {figure.name.removeprefix(f'{measured.timing.what} ').lstrip('/, '):
            f'{figure.bar} {figure.verdict}'
            for figure in measured.figures() if figure.bar}


def test_bars_apply_to_the_model_size_and_precision_that_they_are_for():
    measured = assemble(_timing(), COST, CEILINGS, [_peer()])
    assert _bars(measured) == {
        'p50': '<= 5 met', 'ideal floor': '<= 3 met', 'layer by layer floor': '<= 3 met',
        f'{measured.timing.what}, speed / PReNet': '>= 20 met'}
    nano = assemble(_timing('nano', ms=2), COST, CEILINGS, [_peer(ms=30)])
    assert _bars(nano) == {
        'p50': '<= 1.5 missed', f'{nano.timing.what}, speed / PReNet': '>= 20 missed'}
    for other in (_timing(precision='f32'), _timing(size=(640, 480)), _timing(on_gpu=False),
                  _timing('large')):
        assert _bars(assemble(other, COST, CEILINGS, [_peer()])) == {}


def test_figures_are_ratios_of_what_was_measured():
    measured = assemble(_timing(), COST, CEILINGS, [_peer('f32'), _peer(size=(640, 480)), _peer()])
    values = {figure.name.removeprefix(measured.timing.what): figure.value
              for figure in measured.figures()}
    assert values[' p50'] == 4 and values[' p95'] == 5
    assert values[', network alone p50'] == 3 and values[', network alone p95'] == 4
    assert values[', operations'] == 3
    assert values[', bytes, ideal'] == 4 and values[', bytes, layer by layer'] == 602
    assert values[', ideal floor'] == pytest.approx(3.3)
    assert values[' / ideal floor'] == pytest.approx(4 / 3.3)
    assert values[', network alone / layer by layer floor'] == pytest.approx(3 / 7.02)
    assert values[', speed / PReNet'] == 25
    assert values[', speed / PReNet, network alone'] == 33
    json.dumps(measured.as_json())


# The real thing

def test_a_run_with_peer_and_picture(tmp_path, capsys):
    report, picture = tmp_path / 'bench.json', tmp_path / 'plots' / 'speed.svg'
    assert main([
        'bench', '--only', 'engine', '--engines', 'torch', '--models', 'nano', 'base', '--sizes',
        '48x32', '--seconds', '0.1', '--peer', '--json', str(report), '--plot', str(picture)]) == 0
    printed = capsys.readouterr().out
    scenario = json.loads(report.read_text())['scenarios']['engine']
    details = scenario['details']
    assert [timing['model'] for timing in details['timings']] == ['nano', 'base']
    assert set(details['definitions']) >= {'ideal floor', 'layer by layer floor'}
    peer, = details['peers']
    assert (peer['width'], peer['height'], peer['not_captured']) == (48, 32, '')
    assert peer['runs'] >= 5 and 0 < peer['median_ms'] <= peer['p95_ms']
    assert (peer['device_median_ms'] is None) != torch.cuda.is_available()
    for timing in details['timings']:
        assert timing['runs'] >= 5 and 0 < timing['median_ms'] <= timing['p95_ms']
        assert timing['cost']['flops'] > 0
        assert timing['cost']['bytes_layer_by_layer'] > timing['cost']['bytes_ideal']
        assert timing['speed_up'] == pytest.approx(peer['median_ms'] / timing['median_ms'])
        if not torch.cuda.is_available():
            assert timing['floors_ms'] is None and timing['device_median_ms'] is None
    assert 'nano f32 48x32, speed / PReNet' in printed or torch.cuda.is_available()
    tree = ElementTree.parse(picture).getroot()
    words = [element.text for element in tree.iter() if element.tag.endswith('}text')]
    assert tree.tag.endswith('}svg') and any('PReNet' in word for word in words)


def test_a_recurrent_model_is_timed_with_its_memory(tmp_path):
    report = tmp_path / 'bench.json'
    assert main([
        'bench', '--only', 'engine', '--engines', 'openvino', '--models', 'nano-t', '--sizes',
        '128x96', '--seconds', '0.1', '--json', str(report)]) == 0
    figures = json.loads(report.read_text())['scenarios']['engine']['figures']
    value = {figure['name'].partition('128x96, ')[2]: figure['value'] for figure in figures}
    assert value['panned, with memory / nano'] > 1
    assert 0.05 < value['panned, memory alone p50'] < 1000


def test_options_of_the_engine_scenario_need_it(capsys):
    assert main(['bench', '--only', 'bag', '--peer']) == 2
    assert 'for the scenario engine' in capsys.readouterr().err
