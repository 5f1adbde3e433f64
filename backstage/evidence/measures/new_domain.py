"""A network trained on MNIST meets other digits: what to do about its norms.

scikit-learn's 1,797 scanned digits, enlarged to 20 x 20 pixels and padded to 28 x 28, are written
and scanned otherwise than MNIST's. The network meets them as it is; with BN's statistics
re-estimated on unlabelled ones (``torch.optim.swa_utils.update_bn``; adapting the statistics alone
is 1603.04779's idea); and fine-tuned on 100 labelled ones, where BN is trained on, or its
statistics are frozen (``eval()`` while γ and β still learn), or frozen after re-estimation; beside
it GN and LN, which have nothing to freeze.

Each seed trains a network of its own and splits the digits: 100 labelled, 697 unlabelled, 1,000
tested.
"""

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from backstage.evidence.measures.runs import epoch_of, part, step, trained
from s6_model import Net
from utils import Data, Experiment, evaluate, load_data, normalize, split_validation


@dataclass(frozen=True)
class Setting:
    norm: str = "BN"
    statistics: str = "as trained"  # of BN: or "updated" on unlabelled digits before all else
    tuning: str = "none"  # or "training": all as usual; or "frozen": BN in eval mode
    batch_size: int = 32  # of the labelled digits
    lr: float = 0.003  # Adam's, constant
    epochs: int = 20  # over the labelled digits
    mnist_images: int = 20_000  # trained on before, a stratified third,
    mnist_epochs: int = 3  # by the lesson's recipe, nothing augmented


RATES = (0.001, 0.003, 0.01)


def settings() -> dict[str, Setting]:
    """Each norm as it is, BN updated, and each way of fine-tuning."""
    untouched = [Setting(norm) for norm in ("BN", "LN", "GN")]
    untouched.append(Setting(statistics="updated"))
    ways = [("BN", "as trained", "training"), ("BN", "as trained", "frozen")]
    ways += [("BN", "updated", "frozen"), ("LN", "as trained", "training")]
    ways.append(("GN", "as trained", "training"))
    tuned = [Setting(*way, n, lr) for way in ways for n in (32, 4) for lr in RATES]
    return {name_of(s): s for s in untouched + tuned}


def name_of(s: Setting) -> str:
    name = f"{s.norm}, statistics {s.statistics}, tuning {s.tuning}"
    return name if s.tuning == "none" else f"{name}, batch {s.batch_size}, rate {s.lr:g}"


@functools.lru_cache(maxsize=4)
def digits(seed: int) -> Data:
    """100 labelled digits in ``train``, 697 unlabelled in ``val``, 1,000 in ``test``."""
    both = load_data("digits")
    x, y = (torch.cat([getattr(both.train, f), getattr(both.test, f)]) for f in "xy")
    everything = Data(both.name, type(both.train)(x, y), both.test)
    tested = split_validation(everything, 1_000, seed)
    labelled = split_validation(Data(both.name, tested.train, tested.val), 100, seed)
    return Data(both.name, labelled.val, tested.val, labelled.train)


@functools.lru_cache(maxsize=4)  # one network, fine-tuned in many ways
def pretrained(norm: str, images: int, epochs: int, seed: int, data: Data) -> dict:
    """The weights of a network trained on MNIST; its accuracy there is beside the point."""
    experiment = Experiment(norm=norm, epochs=epochs, augment=False)
    small = Data(data.name, part(data.train, images), data.test[::10])
    return trained(experiment, seed, small).model.state_dict()


def measure(setting: Setting, seed: int, data: Data) -> dict:
    """Accuracies in 0..1 at the end: on 1,000 digits, and on every tenth test image of MNIST."""
    model = Net(setting.norm).to(memory_format=torch.channels_last)
    model.load_state_dict(
        pretrained(setting.norm, setting.mnist_images, setting.mnist_epochs, seed, data)
    )
    few = digits(seed)
    if setting.statistics == "updated":
        batches = (normalize(x.float() / 255) for x in few.val.x.split(100))
        update_bn(batches, model)
    if setting.tuning != "none":
        tune(model, setting, seed, few)
    return {
        "test_accuracy": evaluate(model, few.test)[1],
        "mnist_accuracy": evaluate(model, data.test[::10])[1],
    }


def tune(model: Net, setting: Setting, seed: int, few: Data) -> None:
    """Trains the model in place on the labelled digits."""
    optimizer = torch.optim.Adam(model.parameters(), setting.lr)
    for epoch in range(1, setting.epochs + 1):
        model.train()
        if setting.tuning == "frozen":
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        for x, y in epoch_of(few.train, setting.batch_size, seed, epoch):
            step(model, optimizer, x, y)
