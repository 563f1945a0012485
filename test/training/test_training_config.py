"""Training configurations: YAML, the command line, and what they refuse."""

from pathlib import Path

import pytest

from derain_ros.text import UserError
from derain_ros.training.config import (
    TrainingConfig,
    make_config,
    parse_assignment,
    read_config,
)

SHIPPED = Path(__file__).parents[2] / 'config' / 'train'


def read(tmp_path, text):
    path = tmp_path / 'run.yaml'
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize('name', ['pico', 'nano', 'nano-t', 'base', 'large'])
def test_shipped_configurations_are_of_their_model(name):
    values = read_config(SHIPPED / f'{name}.yaml')
    config = make_config({'data': Path('photos'), 'out': Path('run'), **values})
    assert config.model == name
    assert isinstance(config.learning_rate, float)


def test_values_take_the_types_of_their_fields(tmp_path):
    values = read(tmp_path, """\
data: photos
out: runs/a
validation:
steps: 7
learning_rate: 1e-3
ema: 1
channels_last: false
amp: off
""")
    config = make_config(values)
    assert (config.data, config.validation, config.batch) == (Path('photos'), None, 8)
    assert (config.learning_rate, config.ema, config.amp) == (0.001, 1.0, 'off')
    assert config.channels_last is False and config.steps == 7
    assert read(tmp_path, '# nothing yet\n') == {}


@pytest.mark.parametrize(('text', 'message'), [
    ('learnin_rate: 0.1', "run.yaml: unknown key 'learnin_rate'; did you mean 'learning_rate'?"),
    ('steps: many', "run.yaml: steps is 'many', expected a whole number from 1"),
    ('steps: true', 'steps is True, expected'),
    ('steps: 0', 'steps is 0, expected a whole number from 1'),
    ('size: 100', 'size is 100, expected a whole number from 64 to 4096, a multiple of 64'),
    ('learning_rate: fast', "learning_rate is 'fast', expected a number above 0"),
    ('learning_rate: 0', 'learning_rate is 0, expected a number above 0'),
    ('ema: 1.5', 'ema is 1.5, expected a number from 0 to 1'),
    ('dry_share: .nan', 'dry_share is nan, expected'),
    ('channels_last: 1', 'channels_last is 1, expected true or false'),
    ('model: 3', 'model is 3, expected a text'),
    ('data: 3', 'data is 3, expected a path'),
    ("data: ''", "data is '', expected a path"),
    ('validation: []', 'validation is [], expected a path or null'),
    ('amp: bf8', "amp is 'bf8', expected one of auto, bf16, fp16, off"),
    ('3: 3', "unknown key '3'"),
    ('- steps', "the file is ['steps'], expected keys with values"),
    ('steps: [', 'run.yaml: not YAML'),
    ('steps: 3\nsteps: 4', 'found duplicate key'),
    (300 * '[', 'not YAML'),
    ('a: !!python/object/apply:os.getcwd []', 'not YAML'),
])
def test_files_that_are_wrong_say_where(text, message, tmp_path):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_every_field_can_be_set_and_is_described():
    for name in TrainingConfig.__struct_fields__:
        assert name in TrainingConfig.__doc__, name
    assert parse_assignment('dry_share=0.5') == {'dry_share': 0.5}
    for text, message in (
        ('dry_share', 'expected FIELD=VALUE'),
        ('dry=1', "--set dry=1: unknown key 'dry'"),
        ('seed=[', r'--set seed=\[: not YAML'),
    ):
        with pytest.raises(UserError, match=message):
            parse_assignment(text)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['photos'], 'out is missing'),
    (['-o', 'run'], 'data is missing'),
    (['photos', '-o', 'run', '--config', '{}/bad.yaml'], "unknown key 'stepz'"),
    (['photos', '-o', 'run', '--set', 'amp=7'], 'amp is 7, expected one of'),
    (['photos', '-o', 'run', '--set', 'intensity_low=0.9', '--set', 'intensity_high=0.5'],
     'intensity_low: 0.9 exceeds'),
    (['photos', '-o', 'run', '--size', '65'], 'size is 65, expected'),
])
def test_the_command_refuses_with_status_2(arguments, message, tmp_path, derain):
    (tmp_path / 'bad.yaml').write_text('stepz: 3\n')
    assert message in derain('train', *(a.format(tmp_path) for a in arguments), status=2).err
