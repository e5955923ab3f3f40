#!/usr/bin/env python3
"""Prints files as numpy and Python's csv module write them, and the samples that they hold, as C for
trainer-image/data/golden_test.c.

    python hack/golden/data.py > trainer-image/data/testdata/golden.h

Needs numpy (written with 2.4).
"""

import argparse
import csv
import io
import random
import re
import struct

import numpy
from numpy.lib import format as npy

SCALE, MEAN, STD = 0.37, 1.25, 0.7
SHAPE = (3, 2, 2)  # three samples

VALUES = {
    "u1": [0, 1, 2, 127, 128, 200, 254, 255, 3, 4, 5, 6],
    "i1": [0, 1, -1, 127, -128, 100, -100, 55, 3, 4, 5, -6],
    "b1": [0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1],
    "u2": [0, 1, 256, 65535, 32768, 1000, 513, 7, 3, 4, 5, 6],
    "i2": [0, 1, 256, 32767, -32768, -1, 513, -7, 3, 4, 5, 6],
    "u4": [0, 1, 16777217, 4294967295, 65536, 1000, 513, 7, 3, 4, 5, 6],
    "i4": [0, 1, 16777217, 2147483647, -2147483648, -1, 513, -7, 3, 4, 5, 6],
    "u8": [0, 1, 2**53 + 1, 2**64 - 1, 65536, 1000, 513, 7, 3, 4, 5, 6],
    "i8": [0, 1, 2**53 + 1, 2**63 - 1, -(2**63), -1, 513, -7, 3, 4, 5, 6],
    "f2": [0, -1, 0.1, 65504, -65504, 6e-8, 6.1e-5, 3.14159, 6.103515625e-05, 0.33325, 1023, -2.5e-7],
    "f4": [0, -1, 0.1, 1e30, -1e30, 1e-40, 6.1e-5, 3.14159, 16777216, 0.33325, 1023, -2.5e-7],
    "f8": [0, -1, 0.1, 1e30, -1e30, 1e-40, 6.1e-5, 3.14159, 9007199254740993, 1 / 3, 1023, -2.5e-7],
}
IDX_TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def expected(array):
    return ((array.astype(numpy.float64) * SCALE - MEAN) / STD).astype(numpy.float32).reshape(-1)


def npy_files():
    for version in ((1, 0), (2, 0), (3, 0)):
        for order in "<>" if version == (1, 0) else "<":
            for kind, values in VALUES.items():
                array = numpy.array(values, dtype=order + kind).reshape(SHAPE)
                file = io.BytesIO()
                npy.write_array(file, array, version=version)
                if version == (1, 0) or kind == "f4":
                    yield f"npy {version[0]} {order}{kind}", "NPY", file.getvalue(), expected(array)


def idx_files():
    for kind, number in IDX_TYPES.items():
        array = numpy.array(VALUES[kind], dtype=">" + kind).reshape(SHAPE)
        header = struct.pack(">BBBB", 0, 0, number, len(SHAPE)) + struct.pack(f">{len(SHAPE)}I", *SHAPE)
        yield f"idx {kind}", "IDX", header + array.tobytes(), expected(array)


def csv_files():
    """Numbers as people and programs write them, quoted or not, with a first column of labels."""
    generator = random.Random(7)
    writings = (repr, "{:.6f}".format, "{:e}".format, "{:.25g}".format, "{:+.3g}".format, "{:.17g}".format, "{:.40f}".format)
    for name, quoting in (("minimal", csv.QUOTE_MINIMAL), ("all", csv.QUOTE_ALL)):
        numbers, file = [], io.StringIO()
        writer = csv.writer(file, quoting=quoting)
        for _ in range(3):
            row = []
            for _ in range(12):
                write = generator.choice(writings)
                row.append(write(generator.choice((-1, 1)) * 10 ** generator.uniform(-12, 12)))
            writer.writerow([0, *row])
            numbers.extend(float(text) for text in row)
        yield f"csv {name}", "CSV", file.getvalue().encode(), expected(numpy.array(numbers))


def c_bytes(data):
    lines = [data[i : i + 80] for i in range(0, len(data), 80)]
    return "\n     ".join('"' + "".join(map(c_byte, line)) + '"' for line in lines)


def c_byte(byte):
    return chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("/* Printed by hack/golden/data.py. */")
    print(f"#define GOLDEN_SCALE {SCALE}\n#define GOLDEN_MEAN {MEAN}\n#define GOLDEN_STD {STD}\n")
    print("static const struct golden_file golden_files[] = {")
    for name, kind, data, x in (*npy_files(), *idx_files(), *csv_files()):
        floats = ", ".join(re.sub(r"\.?0*p", "p", float(value).hex()) + "F" for value in x)
        print(f'    {{"{name}", PLAN_FORMAT_{kind}, {len(data)},\n     {c_bytes(data)},\n     {len(x)}, {{{floats}}}}},')
    print("};")


if __name__ == "__main__":
    main()
