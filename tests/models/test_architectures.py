"""Requirements on every registered architecture; new ones are tested automatically."""

import copy
import dataclasses
import functools
import io
import typing
import warnings

import pytest
import torch
from torch import nn

from reidkit import checkpoint
from reidkit.config.tables import from_table
from reidkit.errors import ConfigError
from reidkit.preprocess import Preprocess
from reidkit.registry import get_arch, list_archs
from reidkit.types import PARTS

NUM_IDS = 5
SIZES = ((32, 32), (64, 32), (96, 32), (128, 64), (192, 96))

every_arch = pytest.mark.parametrize("arch", list_archs())


def small_config(spec, **options):
    known = {field.name for field in dataclasses.fields(spec.config)}
    options = {"backbone": "resnet18"} | options
    return spec.config(**{name: value for name, value in options.items() if name in known})


@functools.cache
def small_size(arch):
    """The smallest input size that the architecture accepts."""
    spec = get_arch(arch)
    for size in (*SIZES, spec.input_size):
        try:
            with torch.device("meta"):
                spec.build(small_config(spec), num_ids=0, input_size=size)
        except ConfigError:
            continue
        return size
    raise AssertionError(f"{arch} accepts no size")


@functools.cache
def built(arch, **options):
    torch.manual_seed(0)
    spec = get_arch(arch)
    config = small_config(spec, **options)
    model = spec.build(config, num_ids=NUM_IDS, input_size=small_size(arch))
    for module in model.modules():  # blocks that are initially the identity are tested too
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.running_mean, std=0.1)
    return model


def network(arch):
    return copy.deepcopy(built(arch)).eval()


def images(arch, *shape):
    return torch.randn(*shape, 3, *small_size(arch))


@every_arch
def test_outputs_have_the_documented_shapes_for_images_and_clips(arch):
    model = network(arch)
    for shape in ((2,), (2, 1), (2, 2)):
        output = model(images(arch, *shape))
        assert output.features.shape[0] == 2 and output.features.dim() == 2
        assert len(output.logits) >= 1
        for logits in output.logits + output.part_logits + output.deep_logits:
            assert logits.shape == (2, NUM_IDS)
        for maps in output.part_maps:
            assert maps.shape[:-2] == (*shape, len(model.parts))
            assert maps.min() >= 0 and maps.max() <= 1
        assert bool(output.part_maps) == bool(model.parts)
        assert model.embed(images(arch, *shape)).shape == (2, model.embedding_dim)


@every_arch
def test_a_clip_of_one_frame_is_embedded_like_an_image(arch):
    model, x = network(arch), images(arch, 2)
    with torch.inference_mode():
        assert torch.equal(model.embed(x), model.embed(x.unsqueeze(1)))


@every_arch
def test_every_trainable_parameter_gets_a_gradient(arch):
    model = network(arch).train()
    output = model(images(arch, 4))
    everything = (
        output.features,
        *output.logits,
        *output.part_logits,
        *output.deep_logits,
        *output.part_maps,
    )
    sum((x.float() * torch.randn_like(x)).sum() for x in everything).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@every_arch
def test_an_embedding_does_not_depend_on_the_rest_of_its_batch(arch):
    model, x = network(arch), images(arch, 3)
    with torch.inference_mode():
        together = model.embed(x)
        alone = torch.cat([model.embed(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * together.abs().max().item())


@every_arch
def test_a_checkpoint_restores_the_network_exactly(arch, tmp_path):
    spec, model = get_arch(arch), network(arch)
    header = checkpoint.Header(
        arch=arch,
        arch_config=dataclasses.asdict(small_config(spec)),
        preprocess=Preprocess(size=small_size(arch)),
        num_ids=NUM_IDS,
    )
    checkpoint.save(tmp_path / "model.safetensors", model, header)
    again, _ = checkpoint.load(tmp_path / "model.safetensors")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.inference_mode():
        x = images(arch, 2)
        assert torch.equal(model.embed(x), again.embed(x))


@every_arch
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_finite_and_close(arch, dtype):
    model, x = network(arch), images(arch, 2)
    with torch.inference_mode():
        expected = model.embed(x)
        with torch.autocast("cpu", dtype=dtype):
            found = model.embed(x)
    assert found.isfinite().all()
    cosine = nn.functional.cosine_similarity(found.float(), expected)
    assert cosine.min() > 0.98


def choices(hint):
    """Some values of an option: all of a Literal or bool, and no stages or the first two."""
    if hint is bool:
        return (True, False)
    if hint == tuple[int, ...]:
        return ((), (1, 2))
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


@every_arch
def test_the_registry_knows_the_supervised_parts_without_building_the_network(arch):
    spec = get_arch(arch)
    hints = typing.get_type_hints(spec.config)
    tables = [{}] + [{name: value} for name, hint in hints.items() for value in choices(hint)]
    built = 0
    for table in tables:
        try:
            options = from_table(spec.config, table, where=arch)
            with torch.device("meta"):
                model = spec.build(options, num_ids=0, input_size=spec.input_size)
        except ConfigError:  # no contexts, no relation and no own feature
            continue
        assert spec.parts(options) == tuple(model.parts), table
        built += 1
    assert built > len(tables) / 2


def test_supervised_parts_depend_on_block_stages_and_supervision():
    spec = get_arch("iaunet")
    assert spec.parts(spec.config()) == spec.parts(spec.config(block="stiau")) == PARTS
    for options in ({"block": "ciau"}, {"stages": ()}, {"part_supervision": False}):
        assert spec.parts(spec.config(**options)) == ()


@every_arch
def test_without_identities_there_is_no_classifier(arch):
    spec = get_arch(arch)
    with torch.device("meta"):
        model = spec.build(small_config(spec), num_ids=0, input_size=small_size(arch)).eval()
        output = model(torch.zeros(1, 3, *small_size(arch)))
    assert output.logits == output.part_logits == output.deep_logits == ()


class Embedding(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.embed(images)


def exported(model, example, dynamic, *, optimize):
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its internals
        program = torch.onnx.export(
            Embedding(model).eval(),
            (example,),
            dynamo=True,
            opset_version=20,
            input_names=["images"],
            dynamic_shapes={"images": {i: torch.export.Dim(n) for i, n in dynamic.items()}},
            verbose=False,
            optimize=optimize,
        )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def with_stub_stages(arch):
    """The network with one block and single convolutions as stages, because export time grows with
    the number of nodes; a whole backbone is exported by the last test."""
    model = copy.deepcopy(built(arch, stages=(2,))).eval()
    channels = 64
    for stage, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
        if not hasattr(model.backbone, f"layer{stage}"):
            continue
        out = model.backbone.channels(stage)
        stride = 2 if getattr(model.backbone, "last_stride", 1) == 2 and stage == 4 else stride
        unit = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride), nn.ReLU())
        setattr(model.backbone, f"layer{stage}", nn.Sequential(unit))
        channels = out
    return model.eval()


def assert_same_embeddings(model, run, x):
    with torch.inference_mode():
        expected = model.embed(x)
    found = run(x)
    assert nn.functional.cosine_similarity(found, expected).min() > 0.9999
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@every_arch
def test_onnx_embeddings_are_equal_for_any_batch_size_and_number_of_frames(arch):
    model = with_stub_stages(arch)
    run = exported(model, images(arch, 2, 3), {0: "batch", 1: "frames"}, optimize=False)
    for shape in ((1, 1), (3, 2), (2, 5)):
        assert_same_embeddings(model, run, images(arch, *shape))


def test_onnx_embeddings_of_images_are_equal_with_a_whole_backbone():
    model = network("iaunet")
    run = exported(model, images("iaunet", 2), {0: "batch"}, optimize=True)
    for batch in (1, 3, 8):
        assert_same_embeddings(model, run, images("iaunet", batch))
