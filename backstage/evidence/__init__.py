"""Many runs of the lesson's networks, and what they prove. It drives utils, never the reverse."""

from backstage.evidence.rows import load
from backstage.evidence.verdicts import judge, judge_same, readable, together

__all__ = ["judge", "judge_same", "load", "readable", "together"]
