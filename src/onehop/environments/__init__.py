"""Environments: locked sets of packages, built once, read-only, shared by all sandboxes.

This package builds them on the host; it must never import what an environment contains.
"""

from onehop.environments.build import add, ensure
from onehop.environments.known import list_environments
from onehop.environments.model import (
    DEFAULT_NAME,
    ENVIRONMENT_VARIABLES,
    KERNEL_REQUIREMENTS,
    MOUNT_POINT,
    Environment,
    load,
)

__all__ = [
    "DEFAULT_NAME",
    "ENVIRONMENT_VARIABLES",
    "KERNEL_REQUIREMENTS",
    "MOUNT_POINT",
    "Environment",
    "add",
    "ensure",
    "list_environments",
    "load",
]
