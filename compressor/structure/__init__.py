"""Channel groups, masks, plans, shrinking, and the proof that they agree."""

from compressor.structure.grouping.find import find_groups
from compressor.structure.groups import ChannelGroup, Groups, Skipped, Slice
from compressor.structure.plan import Plan
from compressor.structure.proof import verify
from compressor.structure.store import load_compact, save_compact
from compressor.structure.surgery.mask import masked
from compressor.structure.surgery.shrink import shrink

__all__ = [
    "ChannelGroup",
    "Groups",
    "Plan",
    "Skipped",
    "Slice",
    "find_groups",
    "load_compact",
    "masked",
    "save_compact",
    "shrink",
    "verify",
]
