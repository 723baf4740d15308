"""Tools of torch, each a function that uses it on a network as its users do, and raises if it does not work."""

import copy
import io
import tempfile
from contextlib import contextmanager
from typing import Any

import torch
import torch.ao.quantization.quantize_fx as quantize_fx
import torch.distributed as dist
import torch.nn.functional as F
from tool_network import Make, Tool, larger, learn, require_same
from torch import Tensor, nn
from torch.ao.quantization import (
    get_default_qat_qconfig_mapping,
    get_default_qconfig_mapping,
    quantize_dynamic,
)
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.flop_counter import FlopCounterMode


def copies(make: Make, x: Tensor) -> None:
    model, file = make(), io.BytesIO()
    torch.save(copy.deepcopy(model), file)
    file.seek(0)
    require_same(torch.load(file, weights_only=False)(x), model(x))  # its own bytes of a moment ago


def from_meta(make: Make, x: Tensor) -> None:
    with torch.device("meta"):
        model = make.fresh()
    model.load_state_dict(make().state_dict(), assign=True)
    require_same(model.eval()(x), make()(x))


def trace(make: Make, x: Tensor) -> None:
    model = make()
    traced: Any = torch.jit.trace(model, x)
    require_same(traced(x), model(x))
    require_same(traced(larger(x)), model(larger(x)))


def trace_training(make: Make, x: Tensor) -> None:
    traced: Any = torch.jit.trace(make().train(), x, check_trace=False)
    F.cross_entropy(traced(x), torch.tensor([0, 1])).backward()


def script(make: Make, x: Tensor) -> None:
    model = make(scriptable=True)
    frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.script(model)))
    require_same(frozen(larger(x)), model(larger(x)))


def symbolic_trace(make: Make, x: Tensor) -> None:
    from torch.fx.experimental.optimization import fuse

    model = make()
    require_same(torch.fx.symbolic_trace(model)(larger(x)), model(larger(x)))
    require_same(fuse(model)(x), model(x), 1e-3)


def export(make: Make, x: Tensor) -> None:
    model, free = make(), torch.export.Dim.DYNAMIC
    shapes = ({axis: free for axis in (0, *range(2, x.ndim))},)
    example = larger(x)
    exported = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    other = example[:2].transpose(-1, -2)
    require_same(exported(other), model(other))


def export_training(make: Make, x: Tensor) -> None:
    exported = torch.export.export(make().train(), (x,)).module()
    F.cross_entropy(exported(x), torch.tensor([0, 1])).backward()


def compiled(make: Make, x: Tensor) -> None:
    torch.compiler.reset()
    learn(torch.compile(make(), backend="aot_eager_default_partitioner", fullgraph=True), x)


def dynamic_quantisation(make: Make, x: Tensor) -> None:
    model = make()
    require_same(quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)(x), model(x), 0.3)


def static_quantisation(make: Make, x: Tensor) -> None:
    model = make()
    prepared = quantize_fx.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    require_same(quantize_fx.convert_fx(prepared)(x), model(x), 0.8)


def quantisation_aware(make: Make, x: Tensor) -> None:
    prepared = quantize_fx.prepare_qat_fx(make().train(), get_default_qat_qconfig_mapping("x86"), (x,))
    learn(prepared, x)
    assert quantize_fx.convert_fx(prepared.eval())(x).isfinite().all()


def averaged(make: Make, x: Tensor) -> None:
    """The statistics of the average are those of the batches, as are those of norms that were trained on them."""
    model = AveragedModel(make())
    model.update_parameters(make())
    update_bn([x, x], model)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    wrong = [name for name, norm in norms.items() if norm.num_batches_tracked is None or norm.num_batches_tracked != 2]
    assert not wrong, f"{len(wrong)} norms did not count both batches, {wrong[0]} among them"
    model.eval()(x)


def pruning(make: Make, x: Tensor) -> None:
    model = make()
    layers = [(m, "weight") for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.3)
    learn(model, x)
    for layer, name in layers:
        prune.remove(layer, name)
    model.eval()(x)


def parametrised(make: Make, x: Tensor) -> None:
    model, expected = make(), make()(x)
    for module in list(model.modules()):
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            parametrizations.weight_norm(module)
    assert parametrize.is_parametrized(next(m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)))
    require_same(model(x), expected)
    learn(model, x)


def gradients_of_each(make: Make, x: Tensor) -> None:
    """In double precision: of values that are nearly equal, fp32 may find another one to be the largest."""
    model, x = make().double(), x.double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, values, (image[None],))[0].square().mean()

    each = vmap(grad(loss), (None, 0))(parameters, x)
    first = grad(loss)(parameters, x[0])
    for name, value in first.items():
        require_same(each[name][0], value, 1e-6)


def ensemble(make: Make, x: Tensor) -> None:
    models = [make(), make()]
    values = stack_module_state(models)
    y = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(*values)
    require_same(y[1], models[1](x))


def forward_mode(make: Make, x: Tensor) -> None:
    model = make()
    change = jvp(model, (x,), (torch.ones_like(x),))[1]
    assert change.isfinite().all()


def twice(make: Make, x: Tensor) -> None:
    """A gradient penalty: the gradient of a gradient."""
    model, x = make(), x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).square().mean(), x, create_graph=True)
    slope.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def channels_last(make: Make, x: Tensor) -> None:
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    model = make()
    y = model.to(memory_format=layout).forward_features(x.contiguous(memory_format=layout))
    assert y.is_contiguous(memory_format=layout), "the layout is lost on the way"
    require_same(y, make().forward_features(x))


def autocast(make: Make, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        learn(make(), x)


def sync_bn(make: Make, x: Tensor) -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(make())
    require_same(model(x), make()(x))


@contextmanager
def process_group() -> Any:
    """A group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def data_parallel(make: Make, x: Tensor) -> None:
    with process_group():
        learn(nn.parallel.DistributedDataParallel(make()), x)


def sharded(make: Make, x: Tensor) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with process_group():
        model = make()
        mesh = init_device_mesh("cpu", (1,))
        for child in model.children():
            fully_shard(list(child) if isinstance(child, nn.ModuleList) else child, mesh=mesh)
        fully_shard(model, mesh=mesh)
        require_same(model(x), make()(x))
        model.train()
        F.cross_entropy(model(x), torch.tensor([0, 1])).backward()


def flop_counter(make: Make, x: Tensor) -> None:
    with FlopCounterMode(display=False) as counter:
        make()(x)
    assert counter.get_total_flops() > 0


def mkldnn(make: Make, x: Tensor) -> None:
    from torch.utils.mkldnn import to_mkldnn

    model = make()
    require_same(to_mkldnn(make())(x.to_mkldnn()).to_dense(), model(x))


def deterministic(make: Make, x: Tensor) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        learn(make(), x)
    finally:
        torch.use_deterministic_algorithms(False)


TOOLS: dict[str, Tool] = {
    "torch: deepcopy, torch.save": copies,
    "torch: meta device, load_state_dict(assign=True)": from_meta,
    "torch: jit.trace": trace,
    "torch: jit.trace, training": trace_training,
    "torch: jit.script, freeze, optimize_for_inference": script,
    "torch: fx.symbolic_trace, fuse": symbolic_trace,
    "torch: export, free sizes": export,
    "torch: export, training": export_training,
    "torch: compile(fullgraph=True)": compiled,
    "torch: quantize_dynamic": dynamic_quantisation,
    "torch: prepare_fx, convert_fx": static_quantisation,
    "torch: prepare_qat_fx, convert_fx": quantisation_aware,
    "torch: AveragedModel, update_bn": averaged,
    "torch: prune.global_unstructured": pruning,
    "torch: parametrizations.weight_norm": parametrised,
    "torch: func.grad, vmap: a gradient an image": gradients_of_each,
    "torch: func.stack_module_state: ensembles": ensemble,
    "torch: func.jvp": forward_mode,
    "torch: gradients of gradients": twice,
    "torch: channels_last": channels_last,
    "torch: autocast": autocast,
    "torch: SyncBatchNorm": sync_bn,
    "torch: DistributedDataParallel": data_parallel,
    "torch: fully_shard": sharded,
    "torch: FlopCounterMode": flop_counter,
    "torch: mkldnn": mkldnn,
    "torch: use_deterministic_algorithms": deterministic,
}
