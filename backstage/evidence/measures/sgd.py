"""Moved to runs.py."""

from backstage.evidence.measures.runs import *  # noqa: F403
