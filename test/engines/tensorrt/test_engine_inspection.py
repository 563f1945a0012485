"""Reading of what TensorRT's inspector says, in the shapes that its versions are known to have."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain_ros.engines.tensorrt.tensorrt_plan import LayerTypes, read_layers


def tensor(description, name='x'):
    return {'Name': name, 'Location': 'Device', 'Dimensions': [1, 16, 48, 64],
            'Format/Datatype': description}


def layer(kind, inputs, outputs, **more):
    return {'Name': '[CONVOLUTION]-[/stem/conv]', 'LayerType': kind,
            'Inputs': [tensor(one) for one in inputs],
            'Outputs': [tensor(one) for one in outputs], 'TacticName': 'sm80_xmma_fprop', **more}


# As the documentation shows for TensorRT 8 and 10: layouts in words.
CLASSIC = {'Layers': [
    layer('Reformat', ['Row major linear UINT8 format'], ['Row major linear FP32']),
    layer('CaskConvolution', ['Channel major FP16 format where channel % 8 == 0'],
          ['Channel major FP16 format where channel % 8 == 0'], ParameterType='Convolution',
          Weights={'Type': 'Half', 'Count': 432}, Bias={'Type': 'Float', 'Count': 16}),
    layer('CaskConvolution', ['Row major linear FP16 format'], ['Row major linear FP32']),
    layer('PointWiseV2', ['Row major linear FP32'], ['Row major linear UINT8 format']),
    layer('CaskConvolution', ['Thirty-two wide channel vectorized row major Int8 format.'],
          ['Thirty-two wide channel vectorized row major Int8 format.']),
], 'Bindings': ['image', 'derained', 'rain_mask']}

# Layers of TensorRT's compiler, in later versions: plain types, some entries without any.
COMPILED = {'Layers': [
    layer('kgen', ['UInt8'], ['Half'], Metadata='[ONNX Layer: a]\x1f[ONNX Layer: b]', StreamId=0),
    layer('gemm', ['Half', 'Half'], ['Half']),
    layer('kgen', ['Half'], ['Half', 'Float']),
    layer('kgen', ['Half'], ['Int32']),
    layer('kgen', ['BFloat16'], ['BFloat16']),
    layer('signal', [], []),
    layer('wait', ['Half'], ['Half']),
    layer('Constant', [], ['Float']),
    {'Name': 'shape_call', 'LayerType': 'shape_call'},
], 'Bindings': []}


def test_layouts_in_words_are_read():
    found = read_layers(json.dumps(CLASSIC))
    assert found.counts == {'f16': 1, 'f32': 2, 'int8': 1}
    assert found.share('f32') == 0.5
    assert str(found) == '4 layers: 50 % f32, 25 % f16, 25 % int8'


def test_plain_types_are_read():
    found = read_layers(json.dumps(COMPILED))
    assert found.counts == {'f16': 3, 'f32': 1, 'bf16': 1}
    assert str(found) == '5 layers: 60 % f16, 20 % f32, 20 % bf16'


def test_a_bare_list_and_control_characters_are_read():
    text = json.dumps(COMPILED['Layers']).replace('\\u001f', '\x1f')
    assert read_layers(text).counts == {'f16': 3, 'f32': 1, 'bf16': 1}


def test_a_layer_with_no_tensors_counts_by_its_precision():
    assert read_layers('{"Layers": [{"LayerType": "x", "Precision": "FP16"}]}').counts == {
        'f16': 1}


@pytest.mark.parametrize('text', [
    '', 'null', '7', '[', '{"Layers": null}', '{"Layers": ["conv1 + relu1", "pool"]}',
    '{"Layers": [{"LayerType": null, "Outputs": 7, "Inputs": [[]]}]}', '[' * 100000,
])
def test_where_nothing_is_told_that_is_said(text):
    found = read_layers(text)
    assert found == LayerTypes({})
    assert found.share('f32') == 0
    assert 'does not report' in str(found)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(
        ['Half', 'Float', 'kgen']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ['Layers', 'Inputs', 'Outputs', 'LayerType', 'Format/Datatype', 'Precision', 'x']), inner),
    max_leaves=12)


@given(ANYTHING)
def test_any_json_is_survived(value):
    found = read_layers(json.dumps({'Layers': [value, layer('kgen', ['Half'], ['Half'])]}))
    assert found.counts.get('f16', 0) >= 1
