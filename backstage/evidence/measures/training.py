"""Moved to runs.py."""

from backstage.evidence.measures.batch_size import measure as bn_statistics  # noqa: F401
from backstage.evidence.measures.runs import *  # noqa: F403
