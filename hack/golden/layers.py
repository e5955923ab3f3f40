#!/usr/bin/env python3
"""Prints what PyTorch's layers and losses compute, forward and backward, as C for trainer-image/model/golden_test.c.

    python hack/golden/layers.py > trainer-image/model/testdata/golden_layers.h

Needs PyTorch (written with 2.15). Inputs are float32, everything after them is computed in float64.
"""

import argparse

import torch
import torch.nn.functional as F

generator = torch.Generator().manual_seed(11)


def randoms(*shape):
    return torch.randn(*shape, generator=generator).float().double()


def spread(*shape):
    """Values 0.05 apart, none at zero, so that a small difference crosses no kink."""
    count = torch.Size(shape).numel()
    return ((torch.randperm(count, generator=generator) - count / 2 + 0.5) * 0.05).float().double().reshape(shape)


arrays = []


def array(tensor):
    """The name of a C array with these values."""
    if tensor is None or tensor.numel() == 0:
        return "NULL"
    values = ", ".join(f"{x:.9g}F" if any(c in f"{x:.9g}" for c in ".e") else f"{x:.9g}.0F"
                       for x in tensor.detach().reshape(-1).tolist())
    arrays.append(f"static const float golden{len(arrays)}[] = {{{values}}};")
    return f"golden{len(arrays) - 1}"


def shape_of(tensor):
    c, h, w = (list(tensor.shape[1:]) + [1, 1])[:3]
    return f"{{{c}, {h}, {w}}}"


def case(name, kind, inputs, compute, params=(), members="", evaluate=None, statistics=None, ids=False):
    """One layer: `compute(inputs, params)` is what it does in training, `evaluate` in evaluation where that differs;
    `statistics` are what the flat vector's running ones are before, and what their gradients should be."""
    inputs = [x.clone().requires_grad_(not ids) for x in inputs]
    params = [p.clone().requires_grad_() for p in params]
    y = compute(inputs, params)
    dy = randoms(*y.shape)
    wanted = [*([] if ids else inputs), *params]
    grads = torch.autograd.grad(y, wanted, dy)
    dinputs = [] if ids else grads[:len(inputs)]
    dparams = grads[0 if ids else len(inputs):]
    output = array(y)
    evaluated = array(evaluate(inputs[0], params)) if evaluate else output
    before, after = statistics(inputs[0]) if statistics else ([], [])
    flat = torch.cat([p.reshape(-1) for p in [*params, *before]] or [torch.zeros(0)])
    grad = torch.cat([p.reshape(-1) for p in [*dparams, *after]] or [torch.zeros(0)])
    shapes = ", ".join(shape_of(x) for x in inputs)
    fields = [f'"{name}"', f".n = {y.shape[0]}",
              f".layer = {{.type = LAYER_{kind}, .input_count = {len(inputs)}, .in = {shape_of(inputs[0])}, "
              f".out = {shape_of(y)}{members}}}",
              f".shapes = {{{shapes}}}", f".inputs = {{{', '.join(array(x) for x in inputs)}}}",
              f".parameters = {flat.numel()}", f".params = {array(flat)}", f".y = {output}",
              f".evaluated = {evaluated}", f".dy = {array(dy)}",
              f".dinputs = {{{', '.join(array(x) for x in dinputs) or 'NULL'}}}", f".grad = {array(grad)}"]
    return "    {" + ",\n     ".join(fields) + "},"


def norm_members(params, before=0):
    sizes = [p.numel() for p in params]
    members = f", .bias_at = {sizes[0]}, .epsilon = 1e-5, .momentum = 0.1"
    if before:
        members += f", .mean_at = {sum(sizes)}, .variance_at = {sum(sizes) + before}"
    return members


def batch_norm(name, x):
    c = x.shape[1]
    params = [randoms(c), randoms(c)]
    mean, variance = randoms(c), randoms(c).abs() + 0.5

    def statistics(x):
        running = [torch.zeros(c).double(), torch.ones(c).double()]
        F.batch_norm(x.detach(), *running, training=True, momentum=1.0)
        return [mean, variance], [x.shape[0] * r for r in running]

    return case(name, "BATCHNORM", [x], lambda i, p: F.batch_norm(i[0], None, None, *p, training=True), params,
                norm_members(params, c), lambda x, p: F.batch_norm(x, mean, variance, *p, training=False), statistics)


def layer_norm(name, x):
    params = [randoms(*x.shape[1:]), randoms(*x.shape[1:])]
    return case(name, "LAYERNORM", [x], lambda i, p: F.layer_norm(i[0], x.shape[1:], *p), params, norm_members(params))


def pool(name, kind, compute, x, kernel, stride, padding=0):
    return case(name, kind, [x], lambda i, p: compute(i[0], kernel, stride, padding), (),
                f", .kernel = {kernel}, .stride = {stride}" + (f", .padding = {padding}" if padding else ""))


def convolution(name, x, filters, kernel, stride, padding, groups):
    params = [randoms(filters, x.shape[1] // groups, kernel, kernel), randoms(filters)]
    return case(name, "CONV2D", [x], lambda i, p: F.conv2d(i[0], *p, stride, padding, 1, groups), params,
                f", .kernel = {kernel}, .stride = {stride}, .padding = {padding}, .groups = {groups}, .bias = true, "
                f".bias_at = {params[0].numel()}")


def element(name, kind, compute, x):
    return case(name, kind, [x], lambda i, p: compute(i[0]))


def layers():
    dense = [randoms(4, 7), randoms(4)]
    ids = torch.tensor([[0, 3, 3], [4, 0, 1]]).double()
    table = randoms(5, 2)
    return [
        case("dense", "DENSE", [randoms(3, 7)], lambda i, p: F.linear(i[0], *p), dense, ", .bias = true, .bias_at = 28"),
        convolution("convolution", randoms(2, 2, 4, 5), 3, 3, 1, 1, 1),
        convolution("convolution in groups and steps", randoms(2, 4, 5, 6), 4, 3, 2, 1, 2),
        pool("maximum, 2 by 2", "MAXPOOL", F.max_pool2d, spread(2, 2, 5, 6), 2, 2),
        pool("maximum, overlapping", "MAXPOOL", F.max_pool2d, spread(2, 2, 5, 6), 3, 2),
        pool("average, 2 by 2", "AVGPOOL", F.avg_pool2d, randoms(2, 3, 4, 5), 2, 2),
        pool("average, overlapping", "AVGPOOL", F.avg_pool2d, randoms(2, 2, 5, 6), 3, 2),
        pool("average, with gaps", "AVGPOOL", F.avg_pool2d, randoms(1, 2, 5, 8), 2, 3),
        case("global average", "GLOBAL_AVGPOOL", [randoms(2, 3, 3, 7)], lambda i, p: i[0].mean((2, 3))),
        batch_norm("batch norm of images", randoms(3, 2, 3, 7) * 2 + 1),
        batch_norm("batch norm of vectors", randoms(5, 6) * 3 - 2),
        batch_norm("batch norm of one image", randoms(1, 2, 3, 4)),
        layer_norm("layer norm of vectors", randoms(4, 19) * 2 - 1),
        layer_norm("layer norm of images", randoms(3, 2, 4, 3) + 3),
        element("ReLU", "RELU", F.relu, spread(3, 20)),
        element("GELU", "GELU", F.gelu, randoms(3, 20) * 2),
        element("tanh", "TANH", torch.tanh, randoms(3, 20) * 2),
        element("sigmoid", "SIGMOID", torch.sigmoid, randoms(3, 20) * 2),
        case("addition", "ADD", [randoms(2, 3, 2, 4) for _ in range(3)], lambda i, p: i[0] + i[1] + i[2]),
        case("concatenation", "CONCAT", [randoms(2, 3, 2, 4), randoms(2, 1, 2, 4), randoms(2, 2, 2, 4)],
             lambda i, p: torch.cat(i, 1)),
        case("columns", "COLUMNS", [randoms(3, 9)], lambda i, p: i[0][:, 2:6], (), ", .from = 2, .to = 6"),
        case("sum", "SUM", [randoms(3, 8)], lambda i, p: i[0].reshape(3, 4, 2).sum(1), (), ", .units = 2"),
        case("embedding", "EMBEDDING", [ids], lambda i, p: F.embedding(i[0].long(), p[0]).reshape(2, 6), [table],
             ", .dim = 2, .rows = 5", ids=True),
    ]


def later_layers():
    """What came when the numbers of the others were drawn already."""
    return [
        pool("maximum, with padding", "MAXPOOL", F.max_pool2d, spread(2, 2, 5, 6), 3, 2, 1),
        pool("maximum, 2 by 2 with padding", "MAXPOOL", F.max_pool2d, spread(1, 2, 4, 7), 2, 2, 1),
        pool("maximum, with more padding than input", "MAXPOOL", F.max_pool2d, spread(2, 2, 1, 3), 5, 1, 2),
        pool("average, with padding", "AVGPOOL", F.avg_pool2d, randoms(2, 2, 5, 6), 3, 2, 1),
        pool("average, with padding and gaps", "AVGPOOL", F.avg_pool2d, randoms(1, 2, 5, 8), 2, 3, 1),
        pool("average, with more padding than input", "AVGPOOL", F.avg_pool2d, randoms(2, 2, 1, 3), 5, 1, 2),
    ]


def loss(name, kind, compute, outputs, targets, delta=0):
    y = outputs.clone().requires_grad_()
    total = compute(y, targets)
    (dy,) = torch.autograd.grad(total, y)
    return (f'    {{"{name}", .loss = LOSS_{kind}, .delta = {delta}, .n = {y.shape[0]}, .outputs = {y[0].numel()}, '
            f".y = {array(y)}, .targets = {array(targets)},\n     .sum = {total.item():.17g}, .dy = {array(dy)}}},")


def losses():
    values = randoms(7) * 2
    targets = randoms(7)
    classes = torch.tensor([1, 0, 0, 1, 1, 0, 1]).double()
    return [
        loss("softmax cross-entropy", "SOFTMAX_CROSS_ENTROPY",
             lambda y, t: F.cross_entropy(y, t.long(), reduction="sum"), randoms(5, 4) * 3,
             torch.tensor([0, 3, 1, 1, 2]).double()),
        loss("binary cross-entropy", "BINARY_CROSS_ENTROPY",
             lambda y, t: F.binary_cross_entropy_with_logits(y, t, reduction="sum"),
             torch.cat([randoms(5) * 2, torch.tensor([60.0, -90.0]).double()]), classes),
        loss("squared error", "MSE", lambda y, t: F.mse_loss(y, t, reduction="sum"), values, targets),
        loss("Huber", "HUBER", lambda y, t: F.huber_loss(y, t, reduction="sum", delta=0.75), values, targets, 0.75),
        loss("Huber with a delta of 2", "HUBER", lambda y, t: F.huber_loss(y, t, reduction="sum", delta=2.0), values,
             targets, 2),
    ]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    layer_cases, loss_cases = layers(), losses()
    layer_cases += later_layers()
    print("/* Made by hack/golden/layers.py from PyTorch's own numbers: do not edit. */")
    print("// clang-format off")
    print("\n".join(arrays))
    print("static const struct golden_layer golden_layers[] = {")
    print("\n".join(layer_cases))
    print("};\nstatic const struct golden_loss golden_losses[] = {")
    print("\n".join(loss_cases))
    print("};")


if __name__ == "__main__":
    main()
