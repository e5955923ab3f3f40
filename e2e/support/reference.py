"""The models' forward passes again, in plain numpy and double precision: what a model file is judged by.

Nothing is taken from the trainer but the file; shapes are those of the tensors in it.
"""

import hashlib

import numpy
from safetensors.numpy import load_file


def convolve(x, weight, bias, padding):
    """x [n][ci][h][w], weight [co][ci][k][k] → [n][co][oh][ow]: cross-correlation, as the field calls convolution."""
    x = numpy.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = numpy.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return numpy.tensordot(windows, weight, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2) + bias[:, None, None]


def pool(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def relu(x):
    return numpy.maximum(x, 0)


def dense(x, weight, bias):
    """weight [out][in]"""
    return x @ weight.T + bias


def lenet(t, x):
    x = pool(relu(convolve(x, t["conv1.weight"], t["conv1.bias"], 2)))
    x = pool(relu(convolve(x, t["conv2.weight"], t["conv2.bias"], 0)))
    return mlp(t, x)


def mlp(t, x):
    """Every dense layer of the file in turn, with relu between: LeNet's end, and the whole of `mlp`."""
    x = x.reshape(len(x), -1)
    names = sorted(name.removesuffix(".weight") for name in t if t[name].ndim == 2)
    for name in names:
        x = dense(x, t[f"{name}.weight"], t[f"{name}.bias"])
        if name != names[-1]:
            x = relu(x)
    return x


class Judgement:
    """Accuracy (percent) and mean cross-entropy on some samples. Where the two best classes are closer than single
    precision tells apart, either may have been counted: accuracy is a range, nearly always of one number."""

    def __init__(self, logits, labels):
        rows = numpy.arange(len(labels))
        shifted = logits - logits.max(axis=1, keepdims=True)
        self.loss = float(numpy.mean(numpy.log(numpy.exp(shifted).sum(axis=1)) - shifted[rows, labels]))
        others = logits.copy()
        others[rows, labels] = -numpy.inf
        margin = logits[rows, labels] - others.max(axis=1)
        self.least = round(100 * float(numpy.mean(margin > 1e-4)), 6)
        self.most = round(100 * float(numpy.mean(margin > -1e-4)), 6)


def judge(model_file, images, labels, normalize):
    tensors = {name: tensor.astype(numpy.float64) for name, tensor in load_file(model_file).items()}
    forward = lenet if "conv1.weight" in tensors else mlp
    mean, std = normalize["mean"][0], normalize["std"][0]
    logits = []
    for start in range(0, len(images), 1000):
        x = (images[start : start + 1000, None].astype(numpy.float64) * normalize["scale"] - mean) / std
        logits.append(forward(tensors, x))
    return Judgement(numpy.concatenate(logits), labels.astype(numpy.int64))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
