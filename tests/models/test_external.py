"""Third-party weights: each tensor is loaded into its counterpart, or the import fails."""

import pickle
import typing

import external_files as files
import numpy as np
import pytest
import torch

from reidkit.choices import ExternalFormat
from reidkit.errors import CheckpointError, ConfigError
from reidkit.external import import_weights
from reidkit.external_formats import FORMATS

B3, B4 = "trunk.blocks.stage3.", "trunk.blocks.stage2."


def imported(tmp_path, shapes, *, format, arch, **how):
    state = files.filled(shapes, counters=how.pop("counters", True))
    options = how.pop("options", None)
    path = files.write(tmp_path / "weights.pth", state, **how)
    found = import_weights(path, format=format, arch=arch, options=options)
    return found, state


def assert_holds(model, ours, value):
    tensor = model.state_dict()[ours]
    assert torch.equal(tensor, value.flatten()[0].expand(tensor.shape)), ours


@pytest.mark.parametrize(
    ("format", "arch", "shapes", "how", "pairs", "counts"),
    [
        (
            "iaunet-reference",
            "iaunet",
            files.iaunet(),
            {"module": True, "wrapper": {"rank1": files.rank1(), "epoch": 60}},
            {
                "layer4.2.conv3.weight": "trunk.backbone.layer4.2.conv3.weight",
                "IAU3.sa.conv.conv.weight": f"{B3}part.division.conv.weight",
                "IAU3.sa.conv.bn.bias": f"{B3}part.division.norm.bias",
                "IAU3.g.bias": f"{B3}part.reduce.bias",
                "IAU3.SIAU.module_w.relation.0.weight": f"{B3}part.relation.weight",
                "IAU3.SIAU.module_w.relation.1.running_var": f"{B3}part.relation_norm.running_var",
                "IAU3.SIAU.module_l.fsm.0.weight": f"{B3}part.part_update.weight",
                "IAU3.SIAU.module_l.fsm.1.weight": f"{B3}part.part_norm.weight",
                "IAU3.W1.0.weight": f"{B3}channel.update.weight",
                "IAU3.W1.1.weight": f"{B3}channel.norm.weight",
                "IAU3.W2.0.weight": f"{B3}part.frame_update.weight",
                "IAU3.W2.1.running_mean": f"{B3}part.frame_norm.running_mean",
                "bn.weight": "head.bn.weight",
                "classifier.bias": "head.classifier.bias",
            },
            (318, 81, 0, 0),
        ),
        (
            "iaunet-reference",
            "iaunet",
            files.iaunet_video(),
            {"wrapper": {}},
            {
                "IAU2.SA.conv.conv.weight": f"{B4}part.division.conv.weight",
                "IAU2.STIAU.module_l.fsm.0.bias": f"{B4}part.part_update.bias",
                "IAU2.W1.0.weight": f"{B4}channel.update.weight",
                "IAU2.W2.0.weight": f"{B4}part.frame_update.weight",
            },
            (318, 44, 0, 0),
        ),
        (
            "ianet-reference",
            "ianet",
            files.ianet(),
            {},
            {
                "layer2.4.W1.weight": f"{B4}spatial.norm.weight",
                "layer3.6.W2.running_mean": f"{B3}channel.norm.running_mean",
            },
            (318, 27, 0, 0),
        ),
        (
            "rga-reference",
            "rga-sc",
            files.rga(("spatial", "channel")),
            {"counters": False, "zipped": False, "wrapper": {"best_top1": 0.9, "optimizer": {}}},
            {
                "backbone.conv1.weight": "trunk.backbone.conv1.weight",
                "backbone.rga_att3.theta_spatial.0.weight": f"{B3}spatial.theta.0.weight",
                "backbone.rga_att3.gx_channel.1.bias": f"{B3}channel.own.1.bias",
                "backbone.rga_att3.gg_spatial.0.weight": f"{B3}spatial.related.0.weight",
                "backbone.rga_att3.W_channel.3.weight": f"{B3}channel.attend.3.weight",
                "feat_bn.running_mean": "head.bn.running_mean",
                "cls.weight": "head.classifier.weight",
            },
            (0, 510, 0, 0),
        ),
        (
            "pfsa-reference",
            "pfsa",
            files.pfsa(),
            {"counters": False, "zipped": False, "module": True, "wrapper": {"epoch": 3}},
            {
                "base.bn1.weight": "trunk.backbone.bn1.weight",
                "local_conv.weight": "head.conv.weight",
                "feat_bn2d.bias": "head.norm.bias",
                "instance4.weight": "head.parts.4.weight",
                "instance6.bias": "head.whole.bias",
                "local_conv_layer2.weight": "deep.1.conv.weight",
                "instance_layer3.bias": "deep.2.classifier.bias",
            },
            (0, 293, 3, 0),
        ),
        (
            "torchreid",
            "baseline",
            files.torchreid_fc512(),
            {"module": True, "wrapper": {"epoch": 60}},
            {
                "fc.0.weight": "head.reduce.0.weight",
                "fc.1.running_var": "head.reduce.1.running_var",
                "classifier.weight": "head.classifier.weight",
            },
            (318, 9, 0, 0),
        ),
        (
            "torchvision",
            "baseline",
            files.torchvision_resnet50(),
            {},
            {"layer1.0.downsample.0.weight": "trunk.backbone.layer1.0.downsample.0.weight"},
            (318, 0, 2, 0),
        ),
    ],
    ids=["iaunet", "iaunet-video", "ianet", "rga-sc", "pfsa", "torchreid", "torchvision"],
)
def test_tensors_are_loaded_into_their_counterparts(
    tmp_path, format, arch, shapes, how, pairs, counts
):
    found, state = imported(tmp_path, shapes, format=format, arch=arch, **how)
    for theirs, ours in pairs.items():
        assert_holds(found.model, ours, state[theirs])
    for theirs, ours in found.keys.renamed:
        assert_holds(found.model, ours, state[theirs])
    assert len({ours for _, ours in found.keys.renamed}) == len(found.keys.renamed)
    keys = found.keys
    sizes = (keys.matched, keys.renamed, keys.ignored, keys.missing)
    assert tuple(len(names) for names in sizes) == counts


def test_the_command_line_offers_every_format():
    assert typing.get_args(ExternalFormat) == tuple(FORMATS)


def test_options_are_inferred_from_the_tensors(tmp_path):
    video, _ = imported(tmp_path, files.iaunet_video(), format="iaunet-reference", arch="iaunet")
    assert video.config.stages == (2,) and video.num_ids == 10
    released, _ = imported(tmp_path, files.ianet(), format="ianet-reference", arch="ianet")
    assert released.config.variant == "released"
    assert released.preprocess.interpolation == "bicubic"
    pfsa, _ = imported(tmp_path, files.pfsa(), format="pfsa-reference", arch="pfsa")
    assert pfsa.config.rescaling == "l1"
    assert (pfsa.config.deep_reduction, pfsa.config.deep_pooling) == ("conv", "mean")
    fc512, _ = imported(tmp_path, files.torchreid_fc512(), format="torchreid", arch="baseline")
    assert fc512.config.reduced == 512 and fc512.config.last_stride == 1
    assert fc512.model.embedding_dim == 512


def test_passed_options_override_inferred_ones(tmp_path):
    found, _ = imported(
        tmp_path,
        files.torchvision_resnet50(),
        format="torchvision",
        arch="baseline",
        options={"last_stride": 2},
    )
    assert found.config.last_stride == 2


def test_a_scalar_written_by_numpy_1_is_read(tmp_path):
    state = files.filled(files.iaunet())
    path = files.write(tmp_path / "old.pth", state, zipped=False, wrapper={"rank1": files.rank1()})
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert import_weights(path, format="iaunet-reference", arch="iaunet").num_ids == 10


def test_safetensors_with_a_module_prefix_are_read(tmp_path):
    from safetensors.torch import save_file

    state = files.filled(files.torchvision_resnet50())
    named = {f"module.{name}": tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(named, tmp_path / "w.safetensors")
    found = import_weights(tmp_path / "w.safetensors", format="torchvision", arch="baseline")
    assert len(found.keys.matched) == 318


def test_a_missing_tensor_of_the_embedding_is_an_error_that_names_it(tmp_path):
    shapes = files.iaunet()
    del shapes["IAU3.g.weight"], shapes["bn.running_mean"]
    with pytest.raises(CheckpointError, match=r"part\.reduce\.weight.*head\.bn\.running_mean"):
        imported(tmp_path, shapes, format="iaunet-reference", arch="iaunet")


def test_a_classifier_is_optional(tmp_path):
    shapes = files.iaunet()
    del shapes["classifier.weight"], shapes["classifier.bias"]
    found, _ = imported(tmp_path, shapes, format="iaunet-reference", arch="iaunet")
    assert found.num_ids == 0 and found.keys.missing == ()


def test_missing_tensors_that_only_training_needs_are_reported(tmp_path):
    shapes = files.pfsa()
    del shapes["instance_layer1.weight"]
    found, _ = imported(tmp_path, shapes, format="pfsa-reference", arch="pfsa")
    assert found.keys.missing == ("deep.0.classifier.weight",)


def test_an_unknown_tensor_is_an_error_that_names_it(tmp_path):
    shapes = files.iaunet() | {"IAU3.extra.weight": (3,)}
    with pytest.raises(CheckpointError, match=r"has no parameters for IAU3\.extra\.weight"):
        imported(tmp_path, shapes, format="iaunet-reference", arch="iaunet")


def test_a_tensor_of_another_shape_is_an_error_that_names_it(tmp_path):
    shapes = files.iaunet() | {"IAU3.g.weight": (512, 512, 1, 1)}
    with pytest.raises(CheckpointError, match=r"IAU3\.g\.weight has shape \(512, 512, 1, 1\)"):
        imported(tmp_path, shapes, format="iaunet-reference", arch="iaunet")


def test_a_file_of_another_format_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="Check --from iaunet-reference"):
        imported(tmp_path, files.pfsa(), format="iaunet-reference", arch="iaunet")


def test_an_architecture_that_the_weights_do_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="weights fit rga-s, rga-c, rga-sc, not pcb"):
        imported(tmp_path, {"a": (1,)}, format="rga-reference", arch="pcb")
    with pytest.raises(ConfigError, match="Did you mean iaunet-reference"):
        imported(tmp_path, {"a": (1,)}, format="iaunet-refrence", arch="iaunet")


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize("extra", [Harmful(), np.zeros(2), np.float64(1)], ids=lambda x: type(x))
def test_only_tensors_plain_values_and_numpy_float32_are_unpickled(tmp_path, capsys, extra):
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": extra}, path)
    with pytest.raises(CheckpointError) as caught:
        import_weights(path, format="torchvision", arch="baseline")
    assert "only weights are loaded" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "this ran" not in capsys.readouterr().out


def test_files_without_weights_are_refused(tmp_path):
    missing, text, empty = (tmp_path / name for name in ("no.pth", "text.pth", "empty.pth"))
    text.write_text("hello")
    empty.write_bytes(pickle.dumps({}))
    (tmp_path / "x.safetensors").write_text("hello")
    for path, words in (
        (missing, "no such file"),
        (text, "contains more than tensors|not a torch weights file"),
        (tmp_path / "x.safetensors", "not a safetensors file"),
    ):
        with pytest.raises(CheckpointError, match=words):
            import_weights(path, format="torchvision", arch="baseline")
    torch.save({}, empty)
    with pytest.raises(CheckpointError, match="found no tensors"):
        import_weights(empty, format="torchvision", arch="baseline")
