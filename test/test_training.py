"""Training on small runs: it learns, and it goes on where it stopped."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs the extra `train`')

from derain_ros.cli import main  # noqa: E402
from derain_ros.engines import create_engine  # noqa: E402
from derain_ros.network.dual_stage import DualStageNetwork  # noqa: E402
from derain_ros.training.dataset import DryPictures, RainyCrops, scene_of  # noqa: E402
from derain_ros.training.export import flops_per_pixel, write_model  # noqa: E402
from derain_ros.training.loop import Trainer, TrainingConfig  # noqa: E402
from derain_ros.training.losses import charbonnier, mask_truth  # noqa: E402
from derain_ros.training.validation import PERFECT_DB, score  # noqa: E402

# One thread: the runs are tiny, and threads that wait for each other starve on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('dry')
    rng = np.random.default_rng(0)
    for name in ('road_1', 'road_2', 'field'):
        coarse = rng.integers(20, 180, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{name}.png'), cv2.resize(coarse, (160, 128)))
    (folder / 'notes.txt').write_text('not a picture')
    return folder


def config(pictures, out, **changes):
    small = TrainingConfig(
        data=pictures,
        out=out,
        steps=30,
        batch=2,
        size=64,
        warm_up=5,
        learning_rate=2e-3,
        save_every=10,
        workers=0,
    )
    return replace(small, **changes)


def silent(_line):
    pass


def test_scenes_count_once(pictures):
    assert scene_of(Path('road_12.png')) == scene_of(Path('road_3.jpg')) == 'road'
    dry = DryPictures(pictures, 64)
    assert sorted(len(scene) for scene in dry.scenes) == [1, 2]
    assert len(dry.scenes[0][0]) == 2  # 160×128 and its half


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no picture of at least 64x64'):
        DryPictures(tmp_path, 64)


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
    trainer = Trainer(config(pictures, tmp_path, steps=105), silent)
    assert trainer.rate(0) == pytest.approx(2e-3 / 5)
    assert trainer.rate(4) == pytest.approx(2e-3)
    assert trainer.rate(55) == pytest.approx(1e-3)
    assert trainer.rate(105) == pytest.approx(0, abs=1e-9)


def test_the_loss_falls(pictures, tmp_path):
    trainer = Trainer(config(pictures, tmp_path, steps=120, learning_rate=4e-3), silent)
    crops = RainyCrops(DryPictures(pictures, 64), batch=2, size=64, dry_share=0.0, seed=3)
    rainy, dry, streaks = crops.render(0)
    trainer.network.train()
    losses = []
    for trainer.step in range(120):
        losses.append(trainer._one(rainy, dry, streaks))
    for part, share in (('restored', 0.9), ('mask', 0.7)):
        assert losses[-1][part] < share * losses[0][part], (part, losses[0], losses[-1])


def test_a_run_reports_its_steps(pictures, tmp_path):
    lines = []
    Trainer(config(pictures, tmp_path, steps=3), lines.append).run()
    assert lines[-1].startswith('step 3  restored ')
    assert 'steps/s' in lines[-1]


def test_resuming_gives_the_weights_of_an_uninterrupted_run(pictures, tmp_path):
    whole = Trainer(config(pictures, tmp_path / 'whole'), silent).run()
    cut = config(pictures, tmp_path / 'cut')
    interrupted = Trainer(cut, silent)
    crops = iter(
        RainyCrops(
            DryPictures(pictures, 64),
            batch=2,
            size=64,
            dry_share=cut.dry_share,
            seed=cut.seed,
        )
    )
    interrupted.network.train()
    while interrupted.step < 13:  # killed after the checkpoint of step 10
        interrupted._one(*next(crops))
        interrupted.step += 1
        if interrupted.step == 10:
            interrupted._save()
    resumed = Trainer(cut, silent)
    assert resumed.step == 10
    for name, value in resumed.run().state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_exported_files_run_in_every_engine(pictures, tmp_path):
    torch.manual_seed(1)
    network = DualStageNetwork()
    torch.nn.init.normal_(network.fine.weight, std=0.05)
    write_model(network, tmp_path, 'nano', description='test', figures={})
    onnx = pytest.importorskip('onnx')
    model = onnx.load(tmp_path / 'nano.onnx')
    assert 17 <= model.opset_import[0].version <= 20

    def shape(value):
        sizes = value.type.tensor_type.shape.dim
        return value.name, [d.dim_param or d.dim_value for d in sizes]

    assert [shape(v) for v in model.graph.input] == [('image', ['N', 'H', 'W', 3])]
    assert [shape(v) for v in model.graph.output] == [
        ('derained', ['N', 'H', 'W', 3]),
        ('rain_mask', ['N', 'H', 'W']),
    ]
    assert str(Path(__file__).parent.parent) not in (tmp_path / 'nano.onnx').read_bytes().decode(
        'latin-1'
    )
    engine = create_engine('openvino', str(tmp_path / 'nano.onnx'), precision='f32')
    image = np.random.default_rng(0).integers(0, 256, (1, 70, 90, 3), dtype=np.uint8)
    with torch.no_grad():
        restored = network.eval()(torch.from_numpy(image).permute(0, 3, 1, 2) / 255).restored
    expected = (restored.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(engine.infer(image).image - expected).max() <= 1


def test_flops_are_counted_by_hand_for_one_convolution():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, image):
            return self.convolution(image)

    assert flops_per_pixel(One(), 32, 32) == 2 * 9 * 3 * 8


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


def test_train_command_trains_scores_and_goes_on(pictures, tmp_path):
    pairs = tmp_path / 'pairs'
    (pairs / 'clean').mkdir(parents=True)
    cv2.imwrite(str(pairs / 'clean' / 'a.png'), np.full((64, 64, 3), 90, np.uint8))

    def train(steps):
        # A process of its own, as the workers that render rain are forked from it.
        arguments = [pictures, '-o', tmp_path / 'run', '--batch', 1, '--size', 64]
        arguments += ['--validation', pairs, '--steps', steps]
        run = subprocess.run(
            [sys.executable, '-m', 'derain_ros.cli', 'train', *map(str, arguments)],
            capture_output=True, text=True, timeout=300, check=True)
        return run.stdout

    assert 'step 2 ' in train(2)
    out = train(3)
    assert 'goes on from step 2' in out
    assert 'step 3 ' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', '{}', '-o', '{}/run', '--size', '64'], 'no picture of at least 64x64'),
        (['train', '{}', '-o', '{}/run', '--model', 'mega'], "unknown variant 'mega'"),
        (['export', '{}', '-o', '{}/models'], 'no checkpoint.pt'),
    ],
)
def test_train_and_export_say_what_is_wrong(arguments, message, tmp_path, capfd):
    assert main([argument.format(tmp_path) for argument in arguments]) == 1
    assert message in capfd.readouterr().err
