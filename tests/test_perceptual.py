"""LPIPS, against numbers of its authors' own package; the VGGs, against their layers written out."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import nn
from torch.nn import functional as F

from mobile_bilayer.errors import MobileBilayerError

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")
from mobile_bilayer.perceptual import VGG19, VGGFACE, Lpips, Vgg, squeezenet_weights

WEIGHTS = "squeezenet1_1_features.npz"
needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / WEIGHTS).is_file(),
    reason=f"MOBILE_BILAYER_MODELS names no folder with {WEIGHTS}",
)


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return Lpips()


def part(start: int, end: int) -> torch.Tensor:
    """(1, 3, S, S) in [-1, 1], a square of the astronaut's picture."""
    rgb = astronaut()[start:end, start:end]
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1


# By richzhang's lpips 0.1.4, LPIPS(net="squeeze", version="0.1"), on torchvision's SqueezeNet 1.1.
@needs_weights
@pytest.mark.parametrize(
    ("start", "end", "mirrored", "faded"),
    [(0, 256, 0.5742715, 0.0279935), (100, 291, 0.5864787, 0.0268631)],  # an odd side: pooling rounds up
)
def test_distances_are_those_of_the_authors(lpips, start, end, mirrored, faded):
    picture = part(start, end)
    with torch.no_grad():
        assert lpips(picture, picture.flip(-1)).item() == pytest.approx(mirrored, abs=2e-5)
        assert lpips(picture, picture * 0.5).item() == pytest.approx(faded, abs=2e-5)


@needs_weights
def test_equal_pictures_are_at_no_distance_and_noise_adds_to_it(lpips):
    picture = part(160, 256)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        distances = [lpips(picture + share * noise, picture).item() for share in (0, 0.05, 0.2, 0.8)]
    assert distances[0] == 0 and distances == sorted(distances) and distances[3] > 0.3


@needs_weights
def test_each_picture_of_a_batch_has_its_own_distance(lpips):
    first, second = part(160, 256), part(100, 196)
    with torch.no_grad():
        both = lpips(torch.cat([first, second]), torch.cat([second, second]))
        assert both.shape == (2,) and both[1] == 0
        torch.testing.assert_close(both[0], lpips(first, second)[0])


@needs_weights
def test_a_weight_map_ignores_what_it_leaves_out(lpips):
    picture = part(0, 256)
    changed = picture.clone()
    changed[..., :48] = -picture[..., :48]
    weight = torch.zeros(1, 1, 256, 256)
    weight[..., 208:] = 1  # farther from the change than the last layer sees
    with torch.no_grad():
        assert lpips(changed, picture) > 0.05
        assert lpips(changed, picture, weight) < 1e-6
        assert lpips(changed, picture, 1 - weight) > lpips(changed, picture)


@needs_weights
def test_an_even_weight_map_is_no_weight_map(lpips):
    first, second = part(160, 256), part(100, 196)
    with torch.no_grad():
        torch.testing.assert_close(lpips(first, second, torch.full((1, 1, 96, 96), 3.0)), lpips(first, second))


@needs_weights
def test_gradients_reach_the_first_picture_only(lpips):
    first, second = part(160, 256).requires_grad_(), part(100, 196).requires_grad_()
    lpips(first, second).sum().backward()
    assert first.grad.abs().max() > 0 and second.grad is None
    assert not any(p.requires_grad for p in lpips.parameters())


@needs_weights
def test_the_gradient_is_a_number_where_no_feature_fires():
    lpips = Lpips()
    for name, value in lpips.named_parameters():
        if name.endswith("bias"):
            value.fill_(-100)
    first = part(192, 256).requires_grad_()
    lpips(first, part(100, 164)).sum().backward()
    assert torch.isfinite(first.grad).all()


@needs_weights
def test_the_gradient_is_the_slope_of_the_distance():
    noise = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()  # pooling sees no ties
    first, second = part(192, 256) + 0.1 * noise[0], part(180, 244) + 0.1 * noise[1]
    lpips = Lpips().double()
    first.requires_grad_()
    start = lpips(first, second)
    (slope,) = torch.autograd.grad(start.sum(), first)
    way = F.normalize(slope.flatten(), dim=0).reshape(slope.shape)
    with torch.no_grad():
        quotient = (lpips(first + 1e-7 * way, second) - lpips(first - 1e-7 * way, second)) / 2e-7
    torch.testing.assert_close(quotient.sum(), (slope * way).sum(), rtol=1e-3, atol=0)


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path))
    np.savez(tmp_path / WEIGHTS, **{"features.0.weight": np.zeros(1000, np.float32)})
    whole = (tmp_path / WEIGHTS).read_bytes()
    for content in (b"", b"not an archive", whole[:-200]):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(MobileBilayerError, match=WEIGHTS):
            squeezenet_weights()


# torchvision's `features`: a number is a convolution's channels, with ReLU after it; P is pooling.
P = "pool"
VGG_LAYERS = {
    "VGG19": [64, 64, P, 128, 128, P, 256, 256, 256, 256, P, 512, 512, 512, 512, P, 512],
    "VGGFace": [64, 64, P, 128, 128, P, 256, 256, 256, P, 512, 512, 512, P, 512],
}
VGG_READ = {"VGG19": [1, 6, 11, 20, 29], "VGGFace": [1, 6, 11, 18, 25]}
CAFFE = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1"]
# Of pixels in [0, 255]: channel order, what is taken away, what it is divided by.
VGG_INPUT = {
    "VGG19": ([0, 1, 2], [0.485 * 255, 0.456 * 255, 0.406 * 255], [0.229 * 255, 0.224 * 255, 0.225 * 255]),
    "VGGFace": ([2, 1, 0], [93.5940, 104.7624, 129.1863], [1, 1, 1]),
}
LAYOUTS = {"VGG19": VGG19, "VGGFace": VGGFACE}


def random_vgg(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers, width = [], 3
    for item in VGG_LAYERS[name]:
        if item == P:
            layers.append(nn.AvgPool2d(2))
        else:
            layers += [nn.Conv2d(width, item, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight)
            width = item
    return nn.Sequential(*layers)


@pytest.fixture(scope="module", params=["VGG19", "VGGFace"])
def vgg(request, tmp_path_factory):
    """Its name, a plain network with random weights, and their file with torchvision's names."""
    network = random_vgg(request.param)
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "weights.pth"
    torch.save(state | {"features.34.weight": torch.zeros(2), "classifier.0.bias": torch.zeros(3)}, path)
    return request.param, network, path


def test_a_vggs_features_are_those_of_its_layers_one_by_one(vgg):
    name, network, path = vgg
    picture = torch.cat([part(160, 208), part(100, 148)])
    order, mean, deviation = VGG_INPUT[name]
    x = (picture + 1) * 127.5
    x = (x[:, order] - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(deviation).view(1, 3, 1, 1)
    wanted = []
    with torch.no_grad():
        for place, layer in enumerate(network):
            x = layer(x)
            if place in VGG_READ[name]:
                wanted.append(x)
        features = Vgg(path, LAYOUTS[name])(picture)
    assert [tuple(f.shape) for f in features] == [
        (2, 64, 48, 48), (2, 128, 24, 24), (2, 256, 12, 12), (2, 512, 6, 6), (2, 512, 3, 3)
    ]  # fmt: skip
    for ours, theirs in zip(features, wanted, strict=True):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.max().item())


def test_a_vgg_is_frozen_and_lets_gradients_through(vgg):
    name, _, path = vgg
    network = Vgg(path, LAYOUTS[name])
    picture = part(160, 192).requires_grad_()
    network(picture)[-1].mean().backward()
    assert picture.grad.abs().max() > 0
    assert not any(p.requires_grad for p in network.parameters())


def test_a_vggs_file_may_be_safetensors_halves_and_without_prefix(vgg, tmp_path):
    name, network, path = vgg
    save_file({key: value.half() for key, value in network.state_dict().items()}, tmp_path / "weights.safetensors")
    picture = part(160, 192)
    with torch.no_grad():
        first = Vgg(path, LAYOUTS[name])(picture)[-1]
        second = Vgg(tmp_path / "weights.safetensors", LAYOUTS[name])(picture)[-1]
    torch.testing.assert_close(first, second, rtol=0, atol=0.01 * first.max().item())


def test_a_vggface_file_may_have_caffes_names(tmp_path):
    network = random_vgg("VGGFace")
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    state = {"fc6.bias": torch.zeros(2)}
    for name, layer in zip(CAFFE, convolutions, strict=True):
        state |= {f"conv{name}.weight": layer.weight.detach(), f"conv{name}.bias": layer.bias.detach()}
    torch.save(state, tmp_path / "caffe.pth")
    read = Vgg(tmp_path / "caffe.pth", VGGFACE).features.state_dict()
    wanted = network.state_dict()
    assert list(read) == list(wanted) and all(torch.equal(read[name], wanted[name]) for name in wanted)
    with pytest.raises(MobileBilayerError, match=r"VGG19 needs features\.0\.weight"):
        Vgg(tmp_path / "caffe.pth")
    del state["conv4_2.bias"]
    torch.save(state, tmp_path / "caffe.pth")
    with pytest.raises(MobileBilayerError, match=r"VGGFace needs features\.19\.bias"):
        Vgg(tmp_path / "caffe.pth", VGGFACE)


def test_another_networks_weights_are_refused(vgg):
    name, _, path = vgg
    other = {"VGG19": VGGFACE, "VGGFace": VGG19}[name]
    with pytest.raises(MobileBilayerError, match=rf"{other.name} needs features.*weights\.pth lacks it"):
        Vgg(path, other)


def test_a_missing_vgg_file_is_named(tmp_path):
    for name in ("absent.pth", "absent.safetensors"):
        with pytest.raises(MobileBilayerError, match=f"no .*{name}.*VGG19"):
            Vgg(tmp_path / name)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 5, 5)}, tmp_path / "shape.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({0: torch.zeros(3)}, tmp_path / "numbers.pth")
    torch.save({"weights": Path}, tmp_path / "code.pth")  # would run code if it were loaded
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    for content, name in ((b"", "empty"), (b"no weights at all", "text"), (bytes(300), "zeros"), (b"(((.", "pickle")):
        (tmp_path / f"{name}.pth").write_bytes(content)
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 14
    for path in files:
        with pytest.raises(MobileBilayerError, match=path.name.replace(".", r"\.")):
            Vgg(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_vgg_file_cut_short_is_refused(tmp_path, suffix):
    state = {"features.0.weight": torch.rand(64, 3, 3, 3), "features.0.bias": torch.rand(64)}
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(MobileBilayerError, match=r"weights.*can't be read"):
            Vgg(path)
