"""All that media go to beside the call: one line for each output."""

from collections.abc import Sequence
from typing import Final

from gateway.wiring.hls import hls
from gateway.wiring.output import MakeOutput

OUTPUTS: Final[Sequence[MakeOutput]] = (hls,)
