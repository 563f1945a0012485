"""Services of the node beside those of parameters and lifecycle."""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger


def offer_services(node: Node, reset: Callable[[], str]) -> None:
    """Create ``~/set_enabled`` and ``~/reset``.

    Parameters
    ----------
    node
        Has the parameter ``enabled``, which the first service sets.
    reset
        Does what the second is asked for and says what that was.

    """
    def on_set_enabled(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        result = node.set_parameters_atomically([Parameter('enabled', value=request.data)])
        response.success = result.successful
        response.message = result.reason or f'enabled is {str(request.data).lower()}'
        return response

    def on_reset(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = reset()
        response.success = not response.message.startswith('nothing')
        return response

    node.create_service(SetBool, '~/set_enabled', on_set_enabled)
    node.create_service(Trigger, '~/reset', on_reset)
