"""Wheels that hold the native sender, where `GATEWAY_NATIVE` is set, as cibuildwheel does (pyproject.toml). Any other is for all platforms,
and whoever installs it may type `python -m protocols.webrtc.native.build`."""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeSenderHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or not os.environ.get("GATEWAY_NATIVE"):
            return
        sys.path.insert(0, self.root)
        from protocols.webrtc.native.build import build

        made = build()
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["force_include"][str(made)] = str(made.relative_to(Path(self.root)))
