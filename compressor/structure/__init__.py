"""Channel groups, masks, plans, shrinking, and the proof that they agree."""

from compressor.structure.find import find_groups
from compressor.structure.groups import ChannelGroup, Groups, Skipped, Slice
from compressor.structure.mask import masked
from compressor.structure.plan import Plan
from compressor.structure.proof import verify
from compressor.structure.shrink import shrink
from compressor.structure.store import load_compact, save_compact

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
