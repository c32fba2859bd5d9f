"""From a network in torch, or in ONNX, to one that OpenVINO reads, in a process that ends with it.

``python -m deeplens_streams.features.engines.conversion FILE`` reads what to convert from
standard input. torch's hundreds of megabytes go when it ends. It ends, too, when its parent does.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree  # it reads what was written a moment ago  # nosec B405

import click
import numpy as np

from deeplens_streams.errors import ConfigurationError, DeepLensError, WeightsUnavailable
from deeplens_streams.features.base import ModelSpec, Precision

if TYPE_CHECKING:
    from deeplens_streams.features.engines.runtime import openvino

#: Feature maps of this side and larger stay in float32 where a model is ``mixed``.
MIXED_SIDE = 28

_PROGRAM = "deeplens_streams.features.engines.conversion"
_ERRORS: dict[str, type[DeepLensError]] = {
    each.code: each for each in (ConfigurationError, WeightsUnavailable)
}


def convert(model: ModelSpec, weights: Path | None, precision: Precision, target: Path) -> None:
    """Write the conversion into the file `target`, in another process.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    ConfigurationError
        torch is not installed, or the conversion failed.
    OSError
        The folder cannot be written.
    """
    order = {
        "architecture": model.architecture,
        "side": model.input_size,
        "dimension": model.dimension,
        "mean": model.mean,
        "std": model.std,
        "weights": None if weights is None else str(weights),
        "precision": precision,
    }
    command = [sys.executable, "-m", _PROGRAM, str(target)]
    with subprocess.Popen(  # noqa: S603 -- our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()  # and left open: its end is the parent's end
        said = process.stdout.read()
    if process.returncode == 0:
        return
    try:
        failed = json.loads(said)
    except ValueError:
        raise ConfigurationError(
            f"The model cannot be converted for OpenVINO (exit status {process.returncode}); "
            "set DEEPLENS_ENGINE to torch."
        ) from None
    if "errno" in failed:
        raise OSError(failed["errno"], failed["message"])
    raise _ERRORS.get(failed["code"], ConfigurationError)(failed["message"])


def main() -> int:
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _write(order, Path(sys.argv[1]))
    except DeepLensError as error:
        return _fail(code=error.code, message=error.message)
    except OSError as error:
        return _fail(errno=error.errno, message=error.strerror)
    return 0


def _fail(**reason: str | int | None) -> int:
    click.echo(json.dumps(reason))
    return 1


def _end_with_the_parent() -> None:
    # Not by sys.stdin: its lock, held here, would break the end of the interpreter.
    while os.read(0, 1):
        pass
    os._exit(1)


def _network(order: dict[str, Any]) -> "openvino.Model":
    """Return what takes (n, 3, side, side) float32."""
    weights = order["weights"] and Path(order["weights"])
    if order["architecture"] == "onnx":
        from deeplens_streams.features.engines.onnx import read_onnx  # noqa: PLC0415

        return read_onnx(weights, side=order["side"], dimension=order["dimension"])
    try:
        import torch  # noqa: PLC0415 -- only this process has it
    except ImportError as error:
        raise ConfigurationError(
            f"torch is not installed ({error}), and the model is converted with it once; "
            "install deeplens-streams[model]."
        ) from error
    from deeplens_streams.features.engines.runtime import openvino  # noqa: PLC0415
    from deeplens_streams.features.engines.torch_engine import build_network  # noqa: PLC0415

    warnings.simplefilter("ignore")  # what OpenVINO reads is a way of torch's that is to go
    network = build_network(order["architecture"], weights, torch.device("cpu"), torch.float32)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x)

    side = order["side"]
    with torch.no_grad():
        example = torch.zeros(1, 3, side, side)
        # Traced here: OpenVINO has the trace checked, for which torch imports for seconds.
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            Module().eval(), example, check_trace=False
        )
        converted = openvino.convert_model(traced, example_input=example)
    converted.reshape([-1, 3, side, side])
    return converted


def _write(order: dict[str, Any], target: Path) -> None:
    from deeplens_streams.features.engines.kept import Converted  # noqa: PLC0415
    from deeplens_streams.features.engines.runtime import openvino  # noqa: PLC0415

    prepare = openvino.preprocess.PrePostProcessor(_network(order))
    prepare.input().tensor().set_element_type(openvino.Type.u8)
    prepare.input().tensor().set_layout(openvino.Layout("NHWC"))
    prepare.input().model().set_layout(openvino.Layout("NCHW"))
    steps = prepare.input().preprocess().convert_element_type(openvino.Type.f32)
    steps.mean([255 * each for each in order["mean"]]).scale([255 * each for each in order["std"]])
    built = prepare.build()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as folder:
        graph = Path(folder) / "graph.xml"
        openvino.save_model(built, graph, compress_to_fp16=False)
        text = graph.read_bytes()
        if order["precision"] == "mixed":
            text = keep_in_float32(text)
        Converted(text, np.fromfile(graph.with_suffix(".bin"), np.uint8)).write(target)


def keep_in_float32(graph: bytes) -> bytes:
    """Mark the layers whose feature maps are large, as OpenVINO marks those that it must not round.

    The mark is not documented: a test looks at what is run.
    """
    root = ElementTree.fromstring(graph)  # noqa: S314 -- made a moment ago  # nosec B314
    for layer in root.iter("layer"):
        if layer.get("type") not in {"Const", "Parameter", "Result"} and _is_large(layer):
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.SubElement(layer, "rt_info")
            ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True))


def _is_large(layer: ElementTree.Element) -> bool:
    """Whether two of a map's three sizes are large: its channels may be first or last."""
    for port in layer.iterfind("output/port"):
        _, *sizes = (int(each.text or 0) for each in port.iterfind("dim"))
        if len(sizes) == len("CHW") and sorted(sizes)[1] >= MIXED_SIDE:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
