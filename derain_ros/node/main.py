"""Entry point of the executable ``derain_node``."""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from derain_ros.text import why_not_imported

# Slow imports are inside the functions below, so that Ctrl-C in the first second ends the process
# as cleanly as it does later.
if TYPE_CHECKING:
    from rclpy.context import Context
    from rclpy.executors import Executor

    from derain_ros.node.node import DerainNode

SPIN_SECONDS = 0.2
STOP_SECONDS = 1.2
"""How long the process waits for the frame being processed before it exits."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; ``args`` defaults to the process's command line.

    Returns the exit status: 0 after a signal; 1 if a package is missing, the ROS arguments cannot
    be parsed, or ``build_only`` was set and preparing the engine failed.
    """
    # rclpy's own handlers shut ROS down while the worker still uses it, and raise a
    # KeyboardInterrupt, which kills the process if it surfaces inside rclpy. The signals stay
    # blocked during the imports: the ROS wheels re-execute the process, which keeps only the mask.
    numbers = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    stop = threading.Event()
    for number in numbers:
        signal.signal(number, lambda *_: stop.set())
    from derain_ros.node.process_memory import keep_large_buffers, remove_stale_segments

    keep_large_buffers()
    arguments = list(sys.argv[1:] if args is None else args)
    parser = argparse.ArgumentParser(
        prog='derain_node',
        usage='derain_node [-h] [--ros-args -p NAME:=VALUE --params-file FILE -r FROM:=TO ...]',
        description='ROS 2 lifecycle node that removes rain from camera topics.',
        epilog='Parameters: derain_node --ros-args -p model:=nano --params-file FILE; ros2 param '
               'list /derain and ros2 param describe explain them.')
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import remove_ros_args

        from derain_ros.node.node import DerainNode
        from derain_ros.node.parameter_store import unheard
    except ImportError as error:
        problem = why_not_imported(error)
        if not problem:
            raise
        print(f'derain_node: cannot start: {problem}', file=sys.stderr)
        return 1

    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    if stop.is_set():
        return 0
    try:
        parser.parse_args(remove_ros_args(['derain_node', *arguments])[1:])
        remove_stale_segments()
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = DerainNode(stop)
    except Exception as error:  # of several types, for bad arguments and parameter files
        if not stop.is_set():
            hint = ('; there is no such file, or you may not read it'
                    if 'opening YAML file' in str(error) else
                    '; set ROS_LOG_DIR to a folder that can be written to'
                    if 'initialize logging' in str(error) else
                    '; a parameter file needs the name of the node, ros__parameters below it, and '
                    'spaces, not tabs: see config/derain.yaml of this package'
                    if 'params file' in str(error) else '')
            print(f'derain_node: cannot start: {error}{hint}', file=sys.stderr)
        rclpy.try_shutdown()
        return 0 if stop.is_set() else 1
    for problem in unheard(arguments, node.get_fully_qualified_name()):
        node.get_logger().warning(problem)
    try:
        _spin(node, stop)
    finally:
        at_work = node.close(STOP_SECONDS)
        if at_work != 'frame':  # or its publishers would be destroyed while in use
            node.destroy_node()
            rclpy.try_shutdown()
        if at_work:
            # A regular exit would wait for the thread, or crash while it runs.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(node.exit_status)
    return node.exit_status


def _spin(node: 'DerainNode', stop: threading.Event) -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException

    executor = make_executor()
    node.get_logger().debug(f'executor: {type(executor).__name__}')
    executor.add_node(node)
    while rclpy.ok() and not stop.is_set():
        try:
            # Not spin(): on some builds EventsExecutor.spin() without a timeout burns a core
            # and handles nothing, and it would not notice the signal.
            executor.spin_once(timeout_sec=SPIN_SECONDS)
        except ExternalShutdownException:
            return
        except Exception:
            # For example a malformed request to one of rclpy's services; the cameras go on.
            if rclpy.ok():
                node.get_logger().error(f'a callback failed:\n{traceback.format_exc()}')
    executor.shutdown()


def make_executor(context: 'Context | None' = None) -> 'Executor':
    """Return an executor of the type with the least overhead in this ROS distribution."""
    try:
        from rclpy.experimental.events_executor import EventsExecutor as Executor
    except ImportError:  # before Jazzy
        from rclpy.executors import SingleThreadedExecutor as Executor
    return Executor(context=context)


if __name__ == '__main__':
    sys.exit(main())
