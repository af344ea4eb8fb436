"""A trained agent as a graph that runs without this package: ONNX, or torch's `ExportedProgram`.

The graph is one step of an episode, on a batch of any size:

    (glimpse, location, *state) -> (probs, next_location, stop_probability, stop, *next state)

What a runner needs to know is in the file as JSON, see `describe`. An episode begins with a state
of zeros. Where a network depends on the number of glimpses before, as that of a first look does, a
batch's episodes have to begin together.
"""

import copy
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dtram_env.files import replacing
from dtram_env.optional import require as require_module

from .checks import require
from .dtram import DTRAM

KEY = "dtram"  # of the JSON in the file
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
OUTPUTS = ("probs", "next_location", "stop_probability", "stop")


class AgentStep(nn.Module):
    """One step of an agent as a function of tensors.

    Args:
        agent: in evaluation mode.
        step: number of glimpses before, where the network depends on it; else None.
    """

    def __init__(self, agent: DTRAM, step: int | None = None) -> None:
        super().__init__()
        self.agent, self.step = agent, step
        initial = agent.initial(1)
        # Fields without values, of answers that this agent does not keep, are made inside.
        self.kept = tuple(name for name, part in initial._asdict().items() if part.numel())

    def forward(self, glimpse: Tensor, location: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Arguments and results as in the module's text; a batch is at one point of its episodes.

        `glimpse` ``(B, g, g, channels)`` is uint8 and `location` ``(B, 2)`` float32; of the results
        `probs` is ``(B, K)``, `next_location` ``(B, 2)``, `stop_probability` ``(B,)``, and `stop`
        ``(B,)`` bool, the agent's own decision.
        """
        agent, given = self.agent, dict(zip(self.kept, state, strict=True))
        empty, rows = agent.initial(1), glimpse.shape[0]
        made = {name: part.new_zeros(rows, 0) for name, part in empty._asdict().items()}
        after = agent.observe(glimpse, location, type(empty)(**(made | given)), self.step)
        heads = agent.heads(after, self.step)
        stop = agent.stopping.stops(after.time, heads.logits, heads.stop_logit)
        acts = (heads.logits.softmax(-1), heads.location, heads.stop_logit.sigmoid(), stop)
        return *acts, *(getattr(after, name) for name in self.kept)


def describe(agent: DTRAM) -> dict[str, Any]:
    """What a runner needs: JSON values.

    ``state`` has the shape of each of its parts without the batch, and its type. A model of a
    ``first_size`` reads glimpse 1 of that size, the whole image. ``first_location`` is where an
    agent looks first that chooses it.
    """
    config, about = agent.config, agent.about
    sensor = dict(about.get("sensor", {}))
    state = agent.initial(1)._asdict()
    first = None
    if sensor.get("first_glimpse") == "choose":
        first = agent.locate(agent.initial(1))[0].tolist()
    return {
        "env_id": about.get("env_id"),
        "env_options": about.get("env_options", {}),
        "sensor": sensor,
        "crop": (
            "A crop of side s at (x, y) in an image of width W and height H has its left edge at "
            "floor((x + 1) * W / 2 - s / 2 + 0.5) and its top edge likewise, in float64; pixels "
            "outside the image are 0. Scale k is a crop of side s * 2**k, averaged to s by "
            "(sum + n // 2) // n; scales follow each other as channels."
        ),
        "glimpse_shape": list(config.glimpse_shape),
        "first_size": config.thumbnail_size or None,
        "first_location": first,
        "max_glimpses": config.max_glimpses,
        "class_names": list(agent.class_names),
        "stopping": str(agent.stopping),
        "state": {
            name: {"shape": list(part.shape[1:]), "type": str(part.dtype).removeprefix("torch.")}
            for name, part in state.items()
            if part.numel()
        },
        "begin_together": len(_steps(agent)) > 1,
    }


def export(agent: DTRAM, path: str | Path, format: str = "onnx") -> Path:
    """Writes an agent's graph and its description; returns the path.

    Args:
        agent: as `load_agent` reads it. Its stopping rule becomes part of the graph.
        path: of the file.
        format: "onnx", or "torch" for `torch.export.load`.

    Raises:
        MissingDependencyError: a package of the extra "export" is not installed.
        ValueError: another format; or with "torch" an agent whose network depends on the number of
            glimpses before, which only ONNX can hold in one graph.
    """
    require("format", format, format in FORMATS, " or ".join(FORMATS))
    path = Path(path)
    agent = copy.deepcopy(agent).cpu().eval().to(memory_format=torch.contiguous_format)
    steps, about = _steps(agent), json.dumps(describe(agent))
    if format == "torch":
        one = "one network for all glimpses; this one needs --format onnx"
        require("agent", agent.KIND, len(steps) == 1, one)
        program, file = _exported(AgentStep(agent, steps[0])), io.BytesIO()
        torch.export.save(program, file, extra_files={KEY: about})
        with replacing(path) as aside:
            aside.write_bytes(file.getvalue())
        return path
    onnx = require_module("onnx", "export")
    require_module("onnxscript", "export")
    graphs = [_to_onnx(AgentStep(agent, step)) for step in steps]
    model = graphs[0] if len(graphs) == 1 else _by_time(onnx, graphs)
    model.metadata_props.add(key=KEY, value=about)
    onnx.checker.check_model(model)
    with replacing(path) as aside:
        aside.write_bytes(model.SerializeToString())
    return path


def _steps(agent: DTRAM) -> Sequence[int | None]:
    """Numbers of glimpses before, for each of which the agent has a network of its own."""
    if agent.config.per_step:
        return range(agent.config.max_glimpses)
    first = agent.config.first_look is not None or agent.config.thumbnail_size
    return (0, 1) if first else (None,)


def _inputs(step: AgentStep) -> tuple[Tensor, ...]:
    batch = 3  # any: the exported models take batches of every size
    config, state = step.agent.config, step.agent.initial(batch)._asdict()
    side, _, channels = config.glimpse_shape
    if step.step == 0 and config.thumbnail_size:
        side = config.thumbnail_size
    glimpse = torch.zeros(batch, side, side, channels, dtype=torch.uint8)
    return glimpse, torch.zeros(batch, 2), *(state[name] for name in step.kept)


def _names(step: AgentStep) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs."""
    first = step.step == 0 and step.agent.config.thumbnail_size
    inputs = ["first_glimpse" if first else "glimpse", "location", *step.kept]
    return inputs, [*OUTPUTS, *(f"next_{name}" for name in step.kept)]


def _exported(step: AgentStep) -> torch.export.ExportedProgram:
    inputs, batch = _inputs(step), {0: torch.export.Dim("batch")}
    shapes = (batch, batch, tuple(batch for _ in step.kept))
    return torch.export.export(step.eval(), inputs, dynamic_shapes=shapes)


def _to_onnx(step: AgentStep) -> Any:
    inputs, outputs = _names(step)
    program = torch.onnx.export(
        _exported(step), input_names=inputs, output_names=outputs, dynamo=True, verbose=False
    )
    assert program is not None
    return program.model_proto


def _by_time(onnx: Any, graphs: Sequence[Any]) -> Any:
    """One model of the networks for time steps 0, 1 …; the last serves all later ones.

    Each has weights of its own, though some are equal: onnxruntime lays out convolutions for speed
    only where their weights are in the same graph.
    """
    helper, array, model = onnx.helper, onnx.numpy_helper.from_array, graphs[0]
    inputs: dict[str, Any] = {}
    branches = []

    def named(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
        pairs = zip(values, names, strict=True)
        return [onnx.ValueInfoProto(name=name, type=value.type) for value, name in pairs]

    for number, found in enumerate(graphs):
        assert not found.functions, "torch inlines them"
        graph = found.graph
        inputs |= {value.name: value for value in graph.input}
        renamed = {value.name: value.name for value in graph.input}
        for weight in graph.initializer:
            renamed[weight.name] = f"step{number}_{weight.name}"
            weight.name = renamed[weight.name]
        for node in graph.node:
            renamed |= {name: f"step{number}_{name}" for name in node.output if name}
            node.input[:] = [renamed[name] if name else name for name in node.input]
            node.output[:] = [renamed[name] if name else name for name in node.output]
            node.name = f"step{number}_{node.name}"
        ends = named(graph.output, [renamed[value.name] for value in graph.output])
        branches.append(helper.make_graph(graph.node, f"step{number}", [], ends, graph.initializer))

    constants, rest = [array(np.array([0]), "zero")], branches[-1]
    for number, branch in reversed(list(enumerate(branches[:-1]))):
        constants.append(array(np.array([number]), f"number{number}"))
        names = [
            f"is{number}_{value.name}" if number else value.name for value in model.graph.output
        ]
        test = helper.make_node("Equal", ["before", f"number{number}"], [f"is{number}"])
        choice = helper.make_node(
            "If", [f"is{number}"], names, then_branch=branch, else_branch=rest
        )
        rest = helper.make_graph(
            [test, choice], f"from{number}", [], named(model.graph.output, names)
        )
    # The outermost choice is the model itself.
    nodes = [helper.make_node("Gather", ["time", "zero"], ["before"]), *rest.node]
    whole = helper.make_graph(nodes, "agent", list(inputs.values()), rest.output, constants)
    return helper.make_model(whole, opset_imports=model.opset_import, ir_version=model.ir_version)
