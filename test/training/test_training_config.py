"""Training configurations: YAML, the command line, and what they refuse."""

from dataclasses import fields
from pathlib import Path

import pytest

from derain_ros.cli import main
from derain_ros.training.config import (
    ConfigError,
    TrainingConfig,
    make_config,
    parse_assignment,
    read_yaml,
)

SHIPPED = Path(__file__).parents[2] / 'config' / 'train'


def read(tmp_path, text):
    path = tmp_path / 'run.yaml'
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize('name', ['pico', 'nano', 'nano-t', 'base', 'large'])
def test_shipped_configurations_are_of_their_model(name):
    values = read_yaml(SHIPPED / f'{name}.yaml')
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
    assert values == {
        'data': Path('photos'), 'out': Path('runs/a'), 'validation': None, 'steps': 7,
        'learning_rate': 0.001, 'ema': 1.0, 'channels_last': False, 'amp': 'off'}
    config = make_config(values)
    assert (config.steps, config.batch) == (7, 8)
    assert read(tmp_path, '# nothing yet\n') == {}


@pytest.mark.parametrize(('text', 'message'), [
    ('learnin_rate: 0.1', r"run.yaml: unknown key 'learnin_rate'; .* 'learning_rate'"),
    ('3: 3', "unknown key '3'"),
    ('steps: many', "run.yaml: steps: 'many' is not a whole number"),
    ('steps: 1.5', 'steps: 1.5 is not a whole number'),
    ('steps: true', 'steps: True is not a whole number'),
    ('learning_rate: fast', "learning_rate: 'fast' is not a number"),
    ('channels_last: 1', 'channels_last: 1 is not true or false'),
    ('model: 3', 'model: 3 is not text'),
    ('data: 3', 'data: 3 is not a path'),
    ('validation: []', r'validation: \[\] is not a path'),
    ('amp: bf8', "amp: 'bf8' is not one of auto, off, bf16, fp16"),
    ('- steps', 'expected lines of the form'),
    ('steps: [', 'cannot be read as YAML'),
    ('steps: 3\nsteps: 4', 'found duplicate key'),
    (2_000 * '[', 'cannot be read as YAML'),
    ('a: !!python/object/apply:os.getcwd []', 'cannot be read as YAML'),
])
def test_files_that_are_wrong_say_where(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(('change', 'message'), [
    ({'steps': 0}, 'steps: 0 is outside its range, at least 1'),
    ({'size': 100}, 'size: 100 is not a multiple of 64'),
    ({'ema': 1.5}, 'ema: 1.5 is outside its range, 0 to 1'),
    ({'dry_share': float('nan')}, 'dry_share: nan is outside'),
    ({'learning_rate': 0.0}, 'learning_rate: 0.0 is not a positive number'),
    ({'seed': -1}, 'seed: -1 is outside'),
    ({'intensity_low': 0.9, 'intensity_high': 0.5}, 'intensity_low: 0.9 exceeds'),
])
def test_values_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(data=Path('a'), out=Path('b'), **change)


def test_every_field_can_be_set_and_is_described():
    for field in fields(TrainingConfig):
        assert field.name in TrainingConfig.__doc__, field.name
    assert parse_assignment('dry_share=0.5') == ('dry_share', 0.5)
    assert parse_assignment('amp=off') == ('amp', 'off')
    for text, message in (
        ('dry_share', 'expected FIELD=VALUE'),
        ('dry=1', "unknown key 'dry'"),
        ('seed=[', 'cannot be read'),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_assignment(text)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['photos'], 'out is missing'),
    (['-o', 'run'], 'data is missing'),
    (['photos', '-o', 'run', '--config', '{}/bad.yaml'], "unknown key 'stepz'"),
    (['photos', '-o', 'run', '--set', 'amp=7'], 'amp: 7 is not one of'),
    (['photos', '-o', 'run', '--size', '65'], 'size: 65 is not a multiple of 64'),
])
def test_the_command_refuses_with_status_2(arguments, message, tmp_path, capsys):
    (tmp_path / 'bad.yaml').write_text('stepz: 3\n')
    assert main(['train', *(a.format(tmp_path) for a in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [
    ['--minutes', '0'], ['--minutes', 'soon'], ['--steps', '0'], ['--amp', 'bf8'],
])
def test_the_parser_refuses_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(['train', 'photos', '-o', 'run', *arguments])
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err
