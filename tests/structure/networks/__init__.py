"""Small networks, each with one kind of coupling: the collection that all tests of the structure run over."""

from tests.structure.networks import calls, reshaping, weights
from tests.structure.networks.attention import FusedAttention
from tests.structure.networks.case import CASES, IMAGE, Between, Call, Inputs, build, conv_bn, inputs_of, randomised
from tests.structure.networks.convolutional import SqueezeExcite
from tests.structure.networks.norms import ChannelsLast, Raw

__all__ = [
    "Between",
    "CASES",
    "Call",
    "ChannelsLast",
    "FusedAttention",
    "IMAGE",
    "Inputs",
    "Raw",
    "SqueezeExcite",
    "build",
    "calls",
    "conv_bn",
    "inputs_of",
    "randomised",
    "reshaping",
    "weights",
]
