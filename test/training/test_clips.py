"""Rainy clips, and what trains on them."""

import cv2
import numpy as np
import pytest
import torch
from memory_model import scene

from derain_ros.network.dual_stage import DualStageConfig, DualStageNetwork
from derain_ros.network.second_look import LEAST_KNOWN, make_state, warp
from derain_ros.training.batches import batches
from derain_ros.training.clips import (
    FRAMES,
    MARGIN,
    Motion,
    RainyClips,
    read_video,
    sample_motion,
)
from derain_ros.training.config import TrainingConfig
from derain_ros.training.dry_pictures import DryPictures
from derain_ros.training.loop import Trainer
from derain_ros.training.ranks import Ranks

SIZE = 64
SMALL = DualStageConfig(stem=4, cell=8, token=16, token_blocks=(0, 0), clusters=4, past=6)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    for number in range(2):
        cv2.imwrite(str(folder / f'scene{number}.png'), scene(number, 256, 320))
    return folder


def clips(photographs, **more):
    settings = {'batch': 2, 'size': SIZE, 'dry_share': 0.0, 'seed': 4, 'camera': False} | more
    return RainyClips(DryPictures(photographs, SIZE + 2 * MARGIN), **settings)


def test_a_batch_is_the_same_whenever_it_is_rendered(photographs):
    rainy, dry, streaks, flow = clips(photographs).render(7)
    assert rainy.shape == dry.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert streaks.shape == (2, FRAMES, 1, SIZE, SIZE)
    assert flow.shape == (2, FRAMES - 1, 2, SIZE // 4, SIZE // 4)
    assert rainy.dtype == dry.dtype == torch.uint8
    for one, other in zip((rainy, dry, streaks, flow), clips(photographs).render(7), strict=True):
        assert torch.equal(one, other)
    # Rain is new in each frame.
    assert ((streaks[:, 0] - streaks[:, 1]).abs() > 0.05).any()


def test_a_scene_that_stands_is_where_it_was(photographs):
    still = Motion(np.zeros(2), np.zeros((2, 2)), np.zeros(2), np.zeros((4, 4), np.float32))
    np.testing.assert_array_equal(still.places(1.0)[1, 2], [2 + MARGIN, 1 + MARGIN])
    right = Motion(np.array([3, 0]), np.zeros((2, 2)), np.zeros(2), np.ones((4, 4), np.float32))
    np.testing.assert_array_equal(right.places(2.0)[1, 2], [2 + MARGIN + 6, 1 + MARGIN])


def test_motions_stay_within_the_margin():
    rng = np.random.default_rng(0)
    for _ in range(30):
        motion = sample_motion(SIZE, rng)
        for time in (-1.0, 1.1):
            places = motion.places(time)
            assert places.min() >= 0 and places.max() <= SIZE + 2 * MARGIN


def test_dry_states_move_along(photographs):
    batch = clips(photographs, dry_share=1.0, batch=8, size=128)
    _, dry, _, flow = batch.render(0)
    state = warp(make_state(dry[:, 0].float() / 255, torch.zeros(8, 1, 128, 128)), flow[:, 0])
    known = state[:, 3:] > (LEAST_KNOWN - 1) / 255
    error, still = (((255 * each[:, :3] - dry[:, 1]) * known).square().mean((1, 2, 3))
                    for each in (state, dry[:, :1].flatten(0, 1).float() / 255))
    moves = still > 50
    assert moves.sum() >= 3 and (error[moves] / still[moves]).median() < 0.3


def test_videos_are_read_but_for_their_last_quarter(tmp_path):
    path = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10, (320, 180))
    for number in range(16):
        writer.write(np.full((180, 320, 3), 10 * number, np.uint8))
    writer.release()
    frames = read_video(path)
    assert len(frames) == 12 and frames[0].shape == (360, 640, 3)
    assert abs(int(frames[11].mean()) - 110) < 4
    with pytest.raises(FileNotFoundError, match='few frames'):
        read_video(tmp_path / 'none.mp4')


def test_training_leaves_what_single_frames_give(photographs, tmp_path):
    config = TrainingConfig(
        data=photographs, out=tmp_path / 'run', model='nano-t', steps=6, warm_up=0, batch=1,
        size=SIZE, workers=0, device='cpu', render='cpu', seed=2, learning_rate=1e-2)
    torch.manual_seed(config.seed)
    before = DualStageNetwork(SMALL).state_dict()
    trained = Trainer(config, log=lambda _line: None, network=SMALL).run().state_dict()
    changed = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith('second_look.') for name in changed)
    assert {'second_look.gate.bias', 'second_look.to_streaks.weight'} <= changed
    # The same command goes on.
    again = Trainer(config, log=lambda _line: None, network=SMALL)
    assert again.step == 6


def test_videos_that_give_no_crop_are_named(photographs, tmp_path):
    config = TrainingConfig(
        data=photographs, out=tmp_path, model='nano-t', size=SIZE, workers=0, videos=tmp_path)
    message = f'videos: {tmp_path}: no MP4 video in this folder'
    with pytest.raises(FileNotFoundError, match=message):
        batches(config, torch.device('cpu'), Ranks(), 0)
    path = tmp_path / 'wide.mp4'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10, (640, 48))
    for _ in range(16):
        writer.write(np.zeros((48, 640, 3), np.uint8))
    writer.release()
    with pytest.raises(FileNotFoundError, match=r'wide\.mp4: its frames, 640 pixels wide'):
        batches(config, torch.device('cpu'), Ranks(), 0)


def test_a_mirrored_clip_moves_the_other_way(photographs, tmp_path):
    config = TrainingConfig(
        data=photographs, out=tmp_path, model='nano-t', size=SIZE, workers=0, batch=1, echo=2,
        dry_share=1.0, camera=False)
    _, source = batches(config, torch.device('cpu'), Ranks(), 0)
    first, second = next(source), next(source)
    assert torch.equal(second[0], first[0].flip(-1))
    assert torch.equal(second[3][:, :, 0], -first[3][:, :, 0].flip(-1))
    assert torch.equal(second[3][:, :, 1], first[3][:, :, 1].flip(-1))
