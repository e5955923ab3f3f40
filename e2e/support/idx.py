"""Data sets in the idx format: reading the real one, and small ones made for a test."""

import gzip
import struct

import numpy

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def encode(array):
    """idx bytes of an array of uint8: two zeros, type 8, number of dimensions, big-endian sizes, data."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def decode(data):
    sizes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def read(path):
    return decode(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def write(directory, train=1500, test=500, seed=7, compress=True):
    """A small data set that can be learned, by convolutions too: ten coarse patterns, each image one under noise."""
    random = numpy.random.default_rng(seed)
    patterns = random.integers(0, 256, (10, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    suffix = ".gz" if compress else ""
    directory.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        labels = random.integers(0, 10, count).astype(numpy.uint8)
        noise = random.integers(0, 256, (count, 28, 28))
        images = ((patterns[labels] + 3 * noise) // 4).astype(numpy.uint8)
        for name, array in zip(FILES[split], (images, labels)):
            data = encode(array)
            (directory / (name + suffix)).write_bytes(gzip.compress(data, 1, mtime=0) if compress else data)
    return directory
