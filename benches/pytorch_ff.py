#!/usr/bin/env python3
"""Hinton's Forward-Forward recipe on MNIST as a tight PyTorch loop, to compare speeds with.

    benches/pytorch_ff.py DIR [--hidden 1000,1000,1000] [--batch 100] [--epochs 4]
                              [--device cpu|cuda] [--precision f32|tf32|bf16] [--graph]

DIR holds the four files of MNIST, unpacked. The data are on the device as bytes, the updates are
in closed form, nothing is read back within an epoch, and with --graph a whole step is one CUDA
graph. Prints the seconds of an epoch of 50,000 images (the median of all but the first) and the
test error by the head. Needs torch and numpy.
"""

import argparse
import pathlib
import statistics
import time

import numpy
import torch

CLASSES, TRAINING = 10, 50_000
RATE, HEAD_RATE, MOMENTUM, DECAY, HEAD_DECAY, PEER = 0.01, 0.1, 0.9, 0.001, 0.003, 0.03


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--hidden", default="1000,1000,1000")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32", choices=["f32", "tf32", "bf16"])
    parser.add_argument("--graph", action="store_true")
    return parser.parse_args()


def read(path, header, device):
    return torch.from_numpy(numpy.fromfile(path, dtype=numpy.uint8)[header:].copy()).to(device)


def normalised(x):
    """Rows of mean square 1."""
    return x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-12)


def with_label(pixels, label):
    """The label over the first ten pixels, normalised."""
    x = pixels.clone()
    x[:, :CLASSES] = label
    return normalised(x)


class Net:
    def __init__(self, hidden, device, precision):
        sizes = [784] + hidden
        weight = lambda rows, columns: torch.randn(rows, columns, device=device) / rows**0.5
        self.weights = [weight(i, o) for i, o in zip(sizes, sizes[1:])]
        self.biases = [torch.zeros(o, device=device) for o in hidden]
        self.velocities = [torch.zeros_like(w) for w in self.weights]
        self.of_biases = [torch.zeros_like(b) for b in self.biases]
        self.means = [torch.full((o,), 0.5, device=device) for o in hidden]
        self.head = torch.zeros(sum(hidden[1:]), CLASSES, device=device)
        self.of_head = torch.zeros_like(self.head)
        self.half = precision == "bf16"
        # On the device, so that a graph reads the rate of its epoch.
        self.rates = torch.tensor([RATE, HEAD_RATE], device=device)

    def product(self, a, b):
        return (a.bfloat16() @ b.bfloat16()).float() if self.half else a @ b

    def features(self, x):
        found = []
        for level, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = normalised(torch.relu(self.product(x, weight) + bias))
            if level:
                found.append(x)
        return torch.cat(found, 1)

    def step(self, images, labels):
        pixels, count = images.float() / 255, len(labels)
        right = torch.nn.functional.one_hot(labels, CLASSES).float()

        # The head, and a wrong class drawn from its prediction.
        features = self.features(with_label(pixels, torch.full_like(right, 1 / CLASSES)))
        probability = torch.softmax(self.product(features, self.head), 1)
        wrong = torch.multinomial((probability + 1e-9) * (1 - right), 1).squeeze(1)
        gradient = self.product(features.t(), right - probability) / count
        self.of_head.mul_(MOMENTUM).add_((1 - MOMENTUM) * gradient)
        self.head.add_(self.rates[1] * (self.of_head - HEAD_DECAY * self.head))

        # Both views, layer by layer.
        wrong = torch.nn.functional.one_hot(wrong, CLASSES).float()
        x = torch.cat([with_label(pixels, right), with_label(pixels, wrong)])
        for level, weight in enumerate(self.weights):
            activity = torch.relu(self.product(x, weight) + self.biases[level])
            goodness = (activity * activity).sum(1, keepdim=True)
            probability = torch.sigmoid(goodness - activity.shape[1])
            delta = activity * torch.cat([1 - probability[:count], -probability[count:]])
            means = self.means[level]
            means.mul_(MOMENTUM).add_((1 - MOMENTUM) * activity[:count].mean(0))
            delta[:count] += PEER * (means.mean() - means)
            above = normalised(activity)
            velocity, of_bias = self.velocities[level], self.of_biases[level]
            velocity.mul_(MOMENTUM).add_((1 - MOMENTUM) / count * self.product(x.t(), delta))
            of_bias.mul_(MOMENTUM).add_((1 - MOMENTUM) / count * delta.sum(0))
            weight.add_(self.rates[0] * (velocity - DECAY * weight))
            self.biases[level].add_(self.rates[0] * of_bias)
            x = above

    def error(self, images, labels):
        pixels = images.float() / 255
        neutral = torch.full((len(labels), CLASSES), 1 / CLASSES, device=pixels.device)
        found = self.product(self.features(with_label(pixels, neutral)), self.head).argmax(1)
        return (found != labels).float().mean().item()


def recorded(net, batch, device):
    """A step as a CUDA graph, called with the images and labels of a batch."""
    images = torch.zeros(batch, 784, dtype=torch.uint8, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    state = [t for part in vars(net).values() if isinstance(part, list) for t in part]
    state += [net.head, net.of_head]
    before = [t.clone() for t in state]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            net.step(images, labels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        net.step(images, labels)
    for tensor, value in zip(state, before):
        tensor.copy_(value)

    def step(of_images, of_labels):
        images.copy_(of_images)
        labels.copy_(of_labels)
        graph.replay()

    return step


def main():
    options = arguments()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = options.precision == "tf32"
    torch.manual_seed(1)
    file = lambda name, header: read(options.folder / name, header, device)
    images = file("train-images-idx3-ubyte", 16).view(-1, 784)[:TRAINING]
    labels = file("train-labels-idx1-ubyte", 8)[:TRAINING].long()
    hidden = [int(units) for units in options.hidden.split(",")]
    net = Net(hidden, device, options.precision)
    step = recorded(net, options.batch, device) if options.graph else net.step
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    times = []
    for epoch in range(options.epochs):
        factor = min(1, (1 + 2 * (options.epochs - epoch - 1)) / options.epochs)
        net.rates.copy_(torch.tensor([RATE * factor, HEAD_RATE * factor]))
        wait()
        start = time.perf_counter()
        order = torch.randperm(TRAINING, device=device)
        for first in range(0, TRAINING - options.batch + 1, options.batch):
            chosen = order[first : first + options.batch]
            step(images[chosen], labels[chosen])
        wait()
        times.append(time.perf_counter() - start)

    error = net.error(
        file("t10k-images-idx3-ubyte", 16).view(-1, 784), file("t10k-labels-idx1-ubyte", 8).long()
    )
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"PyTorch {torch.__version__}, {name}, {options.precision}{', graph' * options.graph}, "
        f"{options.hidden}, batch {options.batch}: {statistics.median(times[1:] or times):.3f} s "
        f"per epoch, test error {100 * error:.2f}% after {options.epochs} epochs"
    )


main()
