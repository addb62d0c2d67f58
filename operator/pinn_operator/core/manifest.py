"""Kubernetes objects as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Manifest = Mapping[str, Any]
"""A Kubernetes object as JSON. Only rendering, diffing and parsing look inside one."""
