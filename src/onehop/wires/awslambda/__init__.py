"""AWS Lambda's API for functions in Python: made, changed, listed and invoked by an unmodified client.

Source: the model of the service in `botocore` (data/lambda/2015-03-31), and the Lambda developer guide for what a
function sees. A function is an upload; the processes that it runs in are sessions, kept warm as long as they are used.
"""

from __future__ import annotations

from onehop.agent.service import Agent
from onehop.api.mounts import Mount
from onehop.wires.awslambda.errors import refuse
from onehop.wires.awslambda.routes import PREFIX, Lambda
from onehop.wires.awslambda.sigv4 import access_key


def mount(agent: Agent) -> Mount:
    """The protocol's routes."""
    return Mount(PREFIX, Lambda(agent).operations(), refuse, key=access_key)
