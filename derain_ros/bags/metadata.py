"""The metadata.yaml of a rosbag2, in the layout that Humble and Jazzy both read."""

from collections.abc import Sequence
from io import StringIO
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2.metadata import dump_qos_v8
from ruamel.yaml import YAML

from derain_ros.bags.chunks import Totals


def metadata_text(
    name: str, storage: str, packed: str, topics: Sequence[Connection], totals: Totals
) -> str:
    """Return the content of metadata.yaml.

    Parameters
    ----------
    name
        Storage file.
    storage
        ``mcap`` or ``sqlite3``.
    packed
        ``file``, ``message`` or empty.
    topics, totals
        What is in it.

    """
    start = totals.start if totals.start is not None else 2**63 - 1
    span = {
        'starting_time': {'nanoseconds_since_epoch': start},
        'duration': {'nanoseconds': (totals.end or 0) - start if totals.end is not None else 0},
        'message_count': totals.counts.total()}
    return dump_yaml({'rosbag2_bagfile_information': {
        'version': 8,
        'storage_identifier': storage,
        'relative_file_paths': [name],
        **span,
        'topics_with_message_count': [{
            'topic_metadata': {
                'name': topic.topic,
                'type': topic.msgtype,
                'serialization_format': topic.ext.serialization_format,
                'offered_qos_profiles': dump_qos_v8(topic.ext.offered_qos_profiles),
                'type_description_hash': topic.digest,
            },
            'message_count': totals.counts[topic.id],
        } for topic in topics],
        'compression_format': 'zstd' if packed else '',
        'compression_mode': packed,
        'files': [{'path': name, **span}],
        'custom_data': None,
        'ros_distro': 'rosbags',
    }})


def dump_yaml(content: Any) -> str:
    """Return something as YAML."""
    stream = StringIO()
    yaml = YAML(typ='safe')
    yaml.default_flow_style = False
    # No aliases: rosbag2 reads them, but people do as well.
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(content, stream)
    return stream.getvalue()


def dump_profiles(topic: Connection) -> str:
    """Return the QoS profiles of a topic as storages hold them."""
    dumped = dump_qos_v8(topic.ext.offered_qos_profiles)
    return dumped if isinstance(dumped, str) else dump_yaml(dumped).strip()
