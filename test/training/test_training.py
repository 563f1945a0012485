"""Training in this process: data, losses, steps, checkpoints, export."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from training_runs import small_config, tiny

from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.network.dual_stage import DualStageConfig, DualStageNetwork
from derain_ros.training import clipping, model_export
from derain_ros.training.checkpoint import fit_optimizer
from derain_ros.training.config import ConfigError
from derain_ros.training.dataset import RainyCrops
from derain_ros.training.dry_pictures import DryPictures
from derain_ros.training.loop import Trainer, TrainingError
from derain_ros.training.losses import (
    charbonnier,
    mask_truth,
    structure_error,
    veil_error,
)
from derain_ros.training.model_export import (
    export_onnx,
    write_model,
)
from derain_ros.training.picture_pack import scene_of
from derain_ros.training.validation import score

# One thread: the runs are tiny, and threads that wait for each other starve on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope='module')
def crops(pictures):
    return RainyCrops(DryPictures(pictures, 64), batch=2, size=64, dry_share=0.0, seed=3)


def test_scenes_count_once(pictures):
    assert scene_of(Path('road_12.png')) == scene_of(Path('road_3.jpg')) == 'road'
    dry = DryPictures(pictures, 64)
    assert sorted(len(scene) for scene in dry.scenes) == [1, 2]
    assert len(dry.scenes[0][0]) == 2  # 160×128 and its half


def test_batches_depend_on_seed_and_index_alone(pictures):
    dry = DryPictures(pictures, 64)
    options = {'batch': 2, 'size': 64, 'dry_share': 0.5}
    first = RainyCrops(dry, seed=1, **options)
    same = RainyCrops(dry, seed=1, **options)
    for ours, again in zip(first.render(7), same.render(7), strict=True):
        assert torch.equal(ours, again)
    other = RainyCrops(dry, seed=2, **options)
    assert not torch.equal(first.render(7)[1], other.render(7)[1])
    later = iter(RainyCrops(dry, seed=1, first=7, **options))
    assert torch.equal(next(later)[0], first.render(7)[0])


def test_losses_against_hand_computed_values():
    zero, half = torch.zeros(4), torch.tensor([0.0, 0.5, 0.0, 0.5])
    # (2 · 0.001 + 2 · √(0.25 + 1e-6)) / 4
    assert charbonnier(zero, half).item() == pytest.approx(0.2505005, abs=1e-6)
    streaks = torch.tensor([0.0, 8 / 255, 16 / 255, 1.0])
    assert mask_truth(streaks).tolist() == pytest.approx([0, 0.5, 1, 1])


def test_learning_rate_warms_up_and_falls_to_zero(pictures, tmp_path):
    trainer = tiny(small_config(pictures, tmp_path, steps=105))
    assert trainer.rate(0) == pytest.approx(2e-3 / 5)
    assert trainer.rate(4) == pytest.approx(2e-3)
    assert trainer.rate(55) == pytest.approx(1e-3)
    assert trainer.rate(105) == pytest.approx(0, abs=1e-9)


def test_one_batch_is_learnt_by_heart(pictures, crops, tmp_path):
    trainer = tiny(small_config(pictures, tmp_path, steps=60, learning_rate=1e-2))
    batch = crops.render(0)
    trainer.network.train()
    losses = []
    for trainer.step in range(60):
        losses.append(trainer._step(trainer.network, [batch]))
    for part, share in (('restored', 0.5), ('mask', 0.85)):
        assert losses[-1][part] < share * losses[0][part], (part, losses[0], losses[-1])


@pytest.mark.parametrize(('accumulate', 'echo'), [(1, 1), (2, 3)])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
        accumulate, echo, pictures, tmp_path, monkeypatch):
    # So soon that what earlier steps leave to the clipping counts, too.
    monkeypatch.setattr(clipping, 'FEWEST', 2)
    monkeypatch.setattr(clipping, 'LARGER_THAN_USUAL', 0.5)
    config = small_config(pictures, tmp_path / 'whole', steps=16,
                          accumulate=accumulate, echo=echo)
    whole = tiny(config).run()

    def crash(step):
        if step == 13:
            raise OSError('the machine is gone')

    cut = replace(config, out=tmp_path / 'cut')
    with pytest.raises(OSError, match='gone'):
        tiny(cut, progress=crash).run()
    lines = []
    resumed = tiny(cut, lines.append)
    assert resumed.step == 10
    assert 'resumes at step 10' in lines[0]
    for name, value in resumed.run().state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_a_run_starts_from_the_averaged_weights_of_another(pictures, tmp_path):
    first = tiny(small_config(pictures, tmp_path / 'first', steps=12, ema=0.5))
    given = first.run().state_dict()
    changes = {'init': tmp_path / 'first' / 'checkpoint.pt', 'steps': 5}
    second = tiny(small_config(pictures, tmp_path / 'second', **changes))
    assert second.step == 0
    for weights in (second.network.state_dict(), second.averaged().state_dict()):
        for name, value in given.items():
            assert torch.equal(weights[name], value), name


def test_a_checkpoint_of_a_smaller_network_goes_on(pictures, tmp_path):
    config = small_config(pictures, tmp_path, steps=4)
    tiny(config).run()
    path = tmp_path / 'checkpoint.pt'
    state = torch.load(path, weights_only=True)
    names = [name for name, _ in tiny(config).network.named_parameters()]
    lacking = names.index('fine.bias')  # starts at zero
    for weights, prefix in ((state['network'], ''), (state['average'], 'module.')):
        del weights[f'{prefix}fine.bias']
    moments = state['optimizer']['state']
    state['optimizer']['state'] = {
        i - (i > lacking): moments[i] for i in moments if i != lacking}
    state['optimizer']['param_groups'][0]['params'].pop()
    torch.save(state, path)
    lines = []
    trainer = tiny(config, lines.append)
    assert trainer.step == 4
    assert any('starts untrained: fine.bias' in line for line in lines)
    assert not trainer.network.fine.bias.any()
    for index, (name, weights) in enumerate(trainer.network.named_parameters()):
        if name != 'fine.bias':
            kept = trainer.update.optimizer.state[weights]['exp_avg']
            assert torch.equal(kept, moments[index]['exp_avg']), name


def test_weights_are_trained_by_name(pictures, tmp_path):
    config = small_config(pictures, tmp_path / 'run', learn='fine. stage1_tokens.up.')
    before = tiny(config).network.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    trained = tiny(config).run().state_dict()
    changed = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    changed = {name for name in changed if not name.endswith(('.centres', '.share'))}
    assert 'fine.weight' in changed
    assert all(name.startswith(('fine.', 'stage1_tokens.up.')) for name in changed)
    with pytest.raises(ConfigError, match=r"learn: the run .* has 'fine\. .*', not ''; give"):
        tiny(replace(config, learn=''))
    with pytest.raises(ConfigError, match=r"learn: no weights of nano begin with 'stem2'; known: "
                       '.*fill, filled, fine, '):
        tiny(small_config(pictures, tmp_path / 'other', learn='fine. stem2'))


def test_a_checkpoint_of_another_network_is_refused(pictures, tmp_path):
    tiny(small_config(pictures, tmp_path, steps=1)).run()
    path = tmp_path / 'checkpoint.pt'
    state = torch.load(path, weights_only=True)
    state['network']['stem.weight'] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(ConfigError, match='is from another network'):
        tiny(small_config(pictures, tmp_path))


def test_moments_written_in_another_layout_and_implementation_fit():
    def network(layout):
        torch.manual_seed(0)
        return torch.nn.Conv2d(8, 8, 3).to(memory_format=layout)

    def step(convolution, optimizer):
        optimizer.zero_grad()
        torch.manual_seed(1)
        convolution(torch.rand(1, 8, 6, 6)).square().sum().backward()
        optimizer.step()

    plain = network(torch.contiguous_format)
    earlier = torch.optim.AdamW(plain.parameters(), 0.1, foreach=False, fused=False)
    step(plain, earlier)
    other = network(torch.channels_last)
    other.load_state_dict(plain.state_dict())
    fused = torch.optim.AdamW(other.parameters(), 0.1, fused=True)
    names = [name for name, _ in plain.named_parameters()]
    # A state dict shares its tensors with the optimizer.
    fit_optimizer(fused, copy.deepcopy(earlier.state_dict()), names, names)
    step(plain, earlier)
    step(other, fused)
    assert fused.param_groups[0]['fused']
    torch.testing.assert_close(other.weight, plain.weight, rtol=1e-4, atol=1e-5)


def test_accumulated_batches_give_the_mean_gradient(pictures, crops, tmp_path):
    trainer = tiny(small_config(pictures, tmp_path, clip=1e9))
    batches = [crops.render(0), crops.render(1)]
    gradients = []
    for micro in (batches[:1], batches[1:], batches):
        fresh = tiny(trainer.config)
        fresh.network.train()
        fresh._step(fresh.network, micro)
        gradients.append(fresh.network.mask_head.head.weight.grad.clone())
    first, second, both = gradients
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(first, second, rtol=1e-2)


def test_a_step_that_is_not_finite_changes_nothing(pictures, crops, tmp_path):
    lines = []
    trainer = tiny(small_config(pictures, tmp_path, non_finite_limit=2), lines.append)
    rainy, dry, streaks = crops.render(0)
    trainer.network.train()
    trainer._step(trainer.network, [(rainy, dry, streaks)])
    before = {n: v.clone() for n, v in trainer.network.state_dict().items()}
    broken = rainy.float()
    broken[0, 0, 0, 0] = torch.nan
    trainer._step(trainer.network, [(broken, dry, streaks)])
    assert 'not finite: step skipped (1 in a row)' in lines[-1]
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    trainer._step(trainer.network, [(rainy, dry, streaks)])
    trainer._step(trainer.network, [(broken, dry, streaks)])
    assert '(1 in a row)' in lines[-1]
    with pytest.raises(TrainingError, match='2 steps in a row'):
        trainer._step(trainer.network, [(rainy, dry, streaks * torch.inf)])


def test_time_limits_a_run_which_then_goes_on(pictures, tmp_path):
    lines = []
    config = small_config(pictures, tmp_path, steps=100000)
    tiny(config, lines.append).run(minutes=0.02, profile=True)
    [stopped] = [line for line in lines if line.startswith('stopped and saved at step ')]
    assert tiny(config).step == int(stopped.split('step ')[1].split(';')[0]) > 0
    assert lines[-1].startswith('profile: ')


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_lower_precision_trains(amp, pictures, tmp_path):
    lines = []
    trainer = tiny(small_config(pictures, tmp_path, steps=3, amp=amp), lines.append)
    before = trainer.network.stem.weight.clone()
    trainer.run()
    assert f'{amp.replace("bf", "bfloat").replace("fp", "float")};' in lines[0]
    assert not any('not finite' in line for line in lines)
    assert not torch.equal(trainer.network.stem.weight, before)
    assert trainer.network.stem.weight.dtype is torch.float32
    assert trainer.update.scaler.is_enabled() == (amp == 'fp16')


# Tracing takes a minute for the whole network, and as long again in float16.
SHORT = {'morphology': False, 'stage2': False, 'stage1_blocks': (0, 0), 'token_blocks': (0, 0)}


@pytest.mark.parametrize('options', [
    SHORT, SHORT | {'unit': 2}, pytest.param({}, marks=pytest.mark.slow)],
    ids=['short', 'squares', 'whole'])
def test_exported_files_run_in_openvino(options, tmp_path):
    torch.manual_seed(1)
    network = DualStageNetwork(DualStageConfig(stem=4, cell=8, token=16, **options))
    torch.nn.init.normal_(network.coarse.weight, std=0.05)
    if options:
        export_onnx(network.eval(), tmp_path / 'nano.onnx')
    else:
        torch.nn.init.normal_(network.fine.weight, std=0.05)
        write_model(network, tmp_path, 'nano', variant='nano', figures={})
        assert (tmp_path / 'nano_fp16.onnx').is_file()
    onnx = pytest.importorskip('onnx')
    model = onnx.load(tmp_path / 'nano.onnx')
    assert 17 <= model.opset_import[0].version <= 20

    def shape(value):
        sizes = value.type.tensor_type.shape.dim
        return value.name, [d.dim_param or d.dim_value for d in sizes]

    assert [shape(v) for v in model.graph.input] == [('image', ['N', 'H', 'W', 3])]
    assert [shape(v) for v in model.graph.output] == [
        ('derained', ['N', 'H', 'W', 3]), ('rain_mask', ['N', 'H', 'W'])]
    folder = str(Path(__file__).parents[2])
    assert folder not in (tmp_path / 'nano.onnx').read_bytes().decode('latin-1')
    engine = create_engine('openvino', str(tmp_path / 'nano.onnx'), precision='f32')
    image = np.random.default_rng(0).integers(0, 256, (1, 50, 90, 3), dtype=np.uint8)
    with torch.no_grad():
        restored = network.eval()(torch.from_numpy(image).permute(0, 3, 1, 2) / 255).restored
    expected = (restored.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(engine.infer(image).image - expected).max() <= 1


def test_scores_of_an_untrained_network_are_those_of_its_input(tmp_path):
    dry = np.full((40, 48, 3), 100, np.uint8)
    rainy = dry + 10
    for name, picture in (('clean', dry), ('light', rainy)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'one.png'), picture)
    figures = score(DualStageNetwork().eval(), tmp_path)
    assert figures['clean_psnr'] == PERFECT_DB
    assert figures['clean_ssim'] == 1
    # Ten grey levels are 10 · 219 / 255 levels of Y.
    assert figures['light_psnr'] == pytest.approx(29.45, abs=0.01)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{}', '-o', '{}/run', '--size', '64'], 'no picture of at least 64x64'),
        (['{}/none', '-o', '{}/run'], 'no such folder or pack'),
        (['{}', '-o', '{}/run', '--model', 'mega'], "unknown variant 'mega'"),
        (['{}', '-o', '{}/run', '--validation', '{}'], 'no folder clean/'),
        (['{}', '-o', '{}/run', '--init', '{}/w.safetensors'], 'no such file'),
        (['{}', '-o', '{}/run', '--init', '{}/damaged.safetensors'], 'damaged'),
        (['{}', '-o', '{}/old'], 'damaged, or not a checkpoint'),
    ],
)
def test_train_says_what_is_wrong(arguments, message, tmp_path, capfd):
    (tmp_path / 'damaged.safetensors').write_bytes(b'no weights')
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'checkpoint.pt').write_bytes(b'cut off')
    assert main(['train', *(argument.format(tmp_path) for argument in arguments)]) == 2
    assert message in capfd.readouterr().err


def test_export_needs_a_checkpoint(tmp_path, capfd):
    assert main(['export', str(tmp_path), '-o', str(tmp_path / 'models')]) != 0
    assert 'no checkpoint.pt' in capfd.readouterr().err


def test_a_run_that_trained_some_weights_is_exported(pictures, tmp_path, monkeypatch):
    config = small_config(pictures, tmp_path / 'run', model='pico', steps=1, learn='fine.')
    trained = Trainer(config, lambda _line: None).run().state_dict()
    written = []
    monkeypatch.setattr(model_export, 'write_model',
                        lambda network, *_, variant, figures: written.append((network, variant)))
    assert main(['export', str(config.out), '-o', str(tmp_path / 'models')]) == 0
    (network, variant), = written
    assert variant == 'pico'
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())


def test_pairs_of_two_sizes_are_named(tmp_path):
    for name, width in (('clean', 64), ('rainy', 48)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / '7.png'), np.zeros((64, width, 3), np.uint8))
    with pytest.raises(ConfigError, match=r'rainy.7\.png: images differ in shape'):
        score(DualStageNetwork().eval(), tmp_path)


@pytest.mark.parametrize('command', ['train', 'pack'])
def test_an_output_that_cannot_be_written_is_named(command, pictures, tmp_path, capsys):
    blocked = tmp_path / 'file'
    blocked.write_text('in the way')
    target = blocked if command == 'train' else blocked / 'data.pack'
    assert main([command, str(pictures), '-o', str(target)]) in (1, 2)
    assert str(blocked) in capsys.readouterr().err


def test_veil_and_structure_against_hand_computed_values():
    truth = torch.full((1, 3, 16, 16), 0.5)
    # A checkerboard of ±0.1 has no veil; an offset of 0.1 is one throughout.
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing='ij')
    board = truth + 0.1 * (1 - 2 * ((rows + columns) % 2))
    assert veil_error(board, truth) == pytest.approx(1e-3, abs=1e-6)
    assert veil_error(truth + 0.1, truth) == pytest.approx(0.1, abs=1e-4)
    assert structure_error(truth, truth) == pytest.approx(0, abs=1e-6)
    # Flat pictures of 0.5 and 0.6: (2 · 0.3 + 1e-4) / (0.25 + 0.36 + 1e-4); variances of 0
    # are known to a ten thousandth of the constant that they stand beside.
    assert structure_error(truth + 0.1, truth) == pytest.approx(1 - 0.6001 / 0.6101, abs=5e-4)
