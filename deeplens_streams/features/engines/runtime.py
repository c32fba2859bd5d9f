"""OpenVINO, imported so that it tells nobody.

On its import it sends its makers an event and writes an identity into the home folder, by a
package that a locked install leaves out. Where it is installed it is hidden here: OpenVINO then
takes a stub of its own, which does nothing.
"""

import sys

# None makes an import of that name fail.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 -- not before

__all__ = ["openvino"]
