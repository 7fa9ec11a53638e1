"""Instance ids as file names and as names that Kubernetes accepts.

A label in an id may hold anything but spaces, commas, ``=`` and brackets: quotes, slashes, dollar
signs. Names are made of harmless characters, and end in a digest where that could make two equal.
"""

from __future__ import annotations

import hashlib
import re

from kit.engine.plan import Plan, StepInstance

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NOT_DNS = re.compile(r"[^a-z0-9]+")
_READABLE = 60
_DIGEST = 12
DNS_LONGEST = 52
"""A pod of an indexed Job is called ``<job>-<index>``, which must stay within 63 characters."""


def file_name(instance: StepInstance) -> str:
    """A file name for an instance: readable, and different for different keys."""
    label = instance.id.removeprefix(instance.step).strip("[]")
    readable = _UNSAFE.sub("-", label).strip("-.")[:_READABLE]
    return f"{readable or 'one'}-{instance.key[:_DIGEST]}"


def dns_name(*parts: str, longest: int = DNS_LONGEST) -> str:
    """Parts joined to a DNS-1123 label; what is too long is cut and ends in a digest."""
    whole = "-".join(parts)
    name = _NOT_DNS.sub("-", whole.lower()).strip("-")
    if name == whole and len(name) <= longest:
        return name
    tail = hashlib.sha256(whole.encode()).hexdigest()[:6]
    return f"{name[: longest - 7].strip('-')}-{tail}"


def plan_name(plan: Plan) -> str:
    """A short name for a plan, other for every plan: Jobs cannot be changed once they exist."""
    digest = hashlib.sha256(plan.to_json()).hexdigest()[:6]
    return dns_name(plan.experiment, plan.profile, digest, longest=36)
