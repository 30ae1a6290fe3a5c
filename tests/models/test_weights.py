"""ImageNet weights from a file, by download, or none."""

import urllib.error

import external_files as files
import pytest
import torch

from reidkit.errors import CheckpointError, ConfigError, RuntimeMissing
from reidkit.models.weights import load_imagenet, read_tensors
from reidkit.registry import get_arch


def build(arch, **options):
    spec = get_arch(arch)
    return spec.build(spec.config(**options), num_ids=3, input_size=spec.input_size)


def test_a_weights_file_is_loaded_into_the_backbone(tmp_path):
    state = files.filled(files.torchvision_resnet50())
    path = files.write(tmp_path / "resnet50.pth", state)
    model = build("baseline")
    load_imagenet(model, str(path))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_branches_start_as_copies_of_the_pretrained_stage(tmp_path):
    state = files.filled(files.torchvision_resnet50())
    path = files.write(tmp_path / "resnet50.pth", state)
    model = build("cama", branches=3)
    load_imagenet(model, str(path))
    for branch in model.branches:
        assert torch.equal(branch[2].conv3.weight, state["layer4.2.conv3.weight"])


def test_weights_of_another_depth_are_refused(tmp_path):
    path = files.write(tmp_path / "w.pth", files.filled(files.torchvision_resnet50()))
    with pytest.raises(CheckpointError, match=r"does not fit resnet18: layer1\.0\.conv1\.weight"):
        load_imagenet(build("baseline", backbone="resnet18"), str(path))


def test_weights_none_keeps_the_initialisation():
    model = build("baseline", backbone="resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_imagenet(model, "none")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_imagenets_stem_is_refused_for_a_cifar_network(tmp_path):
    path = files.write(tmp_path / "resnet50.pth", files.filled(files.torchvision_resnet50()))
    model = build("iaunet-cifar")
    with pytest.raises(ConfigError, match=r"this resnet50: its stem is.*--weights none"):
        load_imagenet(model, "auto")
    with pytest.raises(CheckpointError, match=r"conv1\.weight \(64, 3, 7, 7\).*--weights none"):
        load_imagenet(model, str(path))


def test_a_failed_download_names_the_file_and_where_to_put_it(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(RuntimeMissing) as caught:
        load_imagenet(build("baseline", backbone="resnet18"), "auto")
    message = str(caught.value)
    assert f"{tmp_path}/checkpoints/resnet18-f37072fd.pth" in message
    assert "--weights FILE" in message and "--weights none" in message


@pytest.mark.filterwarnings("ignore")  # torch deprecates quantised tensors
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.ones(2, 2).to_sparse(), "sparse"),
        (lambda: torch.ones(2, 2, device="meta"), "a meta tensor without values"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
        (lambda: torch.ones(2, 2, dtype=torch.complex64), "complex"),
    ],
)
def test_tensors_that_no_network_holds_are_refused_by_name(tmp_path, make, kind):
    torch.save({"fine": torch.ones(1), "strange": make()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"strange is {kind}"):
        read_tensors(tmp_path / "w.pth")
