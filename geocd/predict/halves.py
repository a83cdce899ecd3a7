"""Half precision for a part of an OpenVINO model: the model cut in two, front and rest.

OpenVINO computes a whole model in one precision. Where some nodes at the front must stay in
float32, the front is a model of its own, whose outputs are inputs of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geocd.predict.runtime import openvino


def cut(model: Any, prefixes: Sequence[str]) -> tuple[Any, Any]:
    """The front up to the nodes whose names begin so, and the rest.

    The rest takes the model's inputs and then the front's outputs. The model is changed.

    Args:
        model: with static shapes.
        prefixes: of friendly names.

    Raises:
        ValueError: no node has such a name.
    """
    ov = openvino()

    def _is_front(node: Any) -> bool:
        return any(node.get_friendly_name().startswith((f"{p}/", f"{p}.")) for p in prefixes)

    inputs = model.get_parameters()
    crossing = [
        (output, outside)
        for node in model.get_ordered_ops() if _is_front(node)
        for output in node.outputs()
        if (outside := [t for t in output.get_target_inputs() if not _is_front(t.get_node())])
    ]  # fmt: skip
    if not crossing:
        raise ValueError(f"no node of the model is named {', '.join(prefixes)}")
    results = [ov.opset13.result(output) for output, _ in crossing]
    front = ov.Model(results, inputs, "front").clone()
    passed = []
    for output, outside in crossing:
        parameter = ov.opset13.parameter(output.get_shape(), output.get_element_type())
        for target in outside:
            target.replace_source_output(parameter.output(0))
        passed.append(parameter)
    return front, ov.Model(model.get_results(), [*inputs, *passed], "rest")
