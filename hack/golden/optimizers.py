#!/usr/bin/env python3
"""Prints what PyTorch's optimizers, clipping and schedules compute, as C for trainer-image/optimizer/optimizer_test.c.

    python hack/golden/optimizers.py > trainer-image/optimizer/testdata/golden.h

Needs PyTorch (written with 2.15). LAMB, which PyTorch does not have, is written out below after You et al., "Large batch
optimization for deep learning", ICLR 2020, algorithm 2, with phi(x) = x, and the ratio 1 where a norm is 0.
"""

import argparse

import torch
from torch.optim import lr_scheduler

SIZES = [33, 5, 8]  # a weight, a bias that starts as zeros, another weight
STEPS = 6
SAMPLES = 4


class LAMB(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["t"] += 1
                state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                m = state["m"] / (1 - beta1 ** state["t"])
                v = state["v"] / (1 - beta2 ** state["t"])
                u = m / (v.sqrt() + group["eps"]) + group["weight_decay"] * p
                norm, update = p.norm().item(), u.norm().item()
                p.add_(u, alpha=-group["lr"] * (norm / update if norm > 0 and update > 0 else 1))


def sgd(params, c):
    return torch.optim.SGD(params, lr=c["learning_rate"], momentum=c.get("momentum", 0), nesterov=c.get("nesterov", False),
                           weight_decay=c["weight_decay"])


def adagrad(params, c):
    return torch.optim.Adagrad(params, lr=c["learning_rate"], eps=c["epsilon"], weight_decay=c["weight_decay"])


def rmsprop(params, c):
    return torch.optim.RMSprop(params, lr=c["learning_rate"], alpha=c["decay"], eps=c["epsilon"],
                               momentum=c.get("momentum", 0), weight_decay=c["weight_decay"])


def adam(kind, **more):
    return lambda params, c: kind(params, lr=c["learning_rate"], betas=(c["beta1"], c["beta2"]), eps=c["epsilon"],
                                  weight_decay=c["weight_decay"], **more)


MOMENTS = dict(beta1=0.9, beta2=0.999, epsilon=1e-8)
KINDS = [
    ("SGD", "PLAN_SGD", sgd, dict(learning_rate=0.1)),
    ("momentum", "PLAN_SGD", sgd, dict(learning_rate=0.1, momentum=0.9)),
    ("Nesterov", "PLAN_SGD", sgd, dict(learning_rate=0.1, momentum=0.9, nesterov=True)),
    ("Adagrad", "PLAN_ADAGRAD", adagrad, dict(learning_rate=0.1, epsilon=1e-10)),
    ("RMSProp", "PLAN_RMSPROP", rmsprop, dict(learning_rate=0.01, decay=0.99, epsilon=1e-8)),
    ("RMSProp with momentum", "PLAN_RMSPROP", rmsprop, dict(learning_rate=0.01, decay=0.9, epsilon=1e-8, momentum=0.8)),
    ("Adam", "PLAN_ADAM", adam(torch.optim.Adam), dict(learning_rate=0.01, **MOMENTS)),
    ("AdamW", "PLAN_ADAMW", adam(torch.optim.AdamW), dict(learning_rate=0.01, **MOMENTS)),
    ("AMSGrad", "PLAN_AMSGRAD", adam(torch.optim.Adam, amsgrad=True), dict(learning_rate=0.01, **MOMENTS)),
    ("LAMB", "PLAN_LAMB", adam(LAMB), dict(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-6)),
]
VARIANTS = [
    ("", dict(weight_decay=0.0)),
    (", decay", dict(weight_decay=0.05)),
    (", decay, clipped", dict(weight_decay=0.05, clip_value=0.6, clip_norm=1.5)),
]


def gradients():
    """Sums over SAMPLES samples; the last steps' are small, so that AMSGrad remembers and clipping lets them pass."""
    generator = torch.Generator().manual_seed(5)
    for step in range(STEPS):
        yield [torch.randn(size, generator=generator) * SAMPLES * (1 if step < 3 else 0.05) for size in SIZES]


def run(make, config):
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.zeros(n) if i == 1 else torch.randn(n, generator=generator))
              for i, n in enumerate(SIZES)]
    start = torch.cat([p.detach().clone() for p in params])
    optimizer = make(params, config)
    after = []
    for sums in gradients():
        for p, s in zip(params, sums):
            p.grad = s / SAMPLES
        if "clip_value" in config:
            torch.nn.utils.clip_grad_value_(params, config["clip_value"])
        if "clip_norm" in config:
            torch.nn.utils.clip_grad_norm_(params, config["clip_norm"])
        optimizer.step()
        after.append(torch.cat([p.detach().clone() for p in params]))
    return start, after


def floats(tensor):
    return "{" + ", ".join(f"{x:.9g}F" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else f"{x:.9g}.0F"
                           for x in tensor.tolist()) + "}"


def plan(constant, config):
    members = [f".type = {constant}"]
    for key, value in config.items():
        members.append(f".{key} = {str(value).lower()}")
    return "{" + ", ".join(members) + "}"


def rates(make, steps, rate=0.5):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make(optimizer)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def warm(make, warmup):
    """Linear warm-up to the full rate in its last step, then what `make` makes."""
    return lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, start_factor=1 / warmup, end_factor=1, total_iters=warmup - 1), make(o)], [warmup])


def schedules():
    """For 24 steps, 3 an epoch."""
    step = lambda o: lr_scheduler.StepLR(o, step_size=6, gamma=0.1)
    cosine = lambda n: lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=n, eta_min=0.5 * 0.01)
    polynomial = lambda n, p: lambda o: lr_scheduler.PolynomialLR(o, total_iters=n, power=p)
    constant = lambda o: lr_scheduler.ConstantLR(o, factor=1)
    by_step = ".type = PLAN_SCHEDULE_STEP, .factor = 0.1, .every_epochs = 2"
    by_cosine = ".type = PLAN_SCHEDULE_COSINE, .final_factor = 0.01"
    by_power = ".type = PLAN_SCHEDULE_POLYNOMIAL, .power = "
    return [
        (".type = PLAN_SCHEDULE_CONSTANT", constant),
        (".type = PLAN_SCHEDULE_CONSTANT, .warmup_steps = 5", warm(constant, 5)),
        (by_step, step),
        (by_step + ", .warmup_steps = 4", warm(step, 4)),
        (by_cosine, cosine(24)),
        (by_cosine + ", .warmup_steps = 6", warm(cosine(18), 6)),
        (by_power + "1", polynomial(24, 1)),
        (by_power + "2.5", polynomial(24, 2.5)),
        (by_power + "0.5, .warmup_steps = 2", warm(polynomial(22, 0.5), 2)),
    ]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print("/* Made by hack/golden/optimizers.py from PyTorch's own numbers: do not edit. */")
    print("// clang-format off")
    print(f"enum {{ GOLDEN_FLOATS = {sum(SIZES)}, GOLDEN_STEPS = {STEPS}, GOLDEN_SAMPLES = {SAMPLES}, GOLDEN_RATES = 24 }};")
    print(f"static const uint64_t golden_sizes[{len(SIZES)}] = {{{', '.join(map(str, SIZES))}}};")
    print(f"static const float golden_start[GOLDEN_FLOATS] = {floats(run(sgd, dict(learning_rate=0.1, weight_decay=0))[0])};")
    print("static const float golden_sums[GOLDEN_STEPS][GOLDEN_FLOATS] = {")
    for sums in gradients():
        print(f"    {floats(torch.cat(sums))},")
    print("};\nstruct golden { const char *name; struct plan_optimizer plan; float first[GOLDEN_FLOATS], last[GOLDEN_FLOATS]; };")
    print("static const struct golden golden_optimizers[] = {")
    for name, constant, make, config in KINDS:
        for suffix, more in VARIANTS:
            config_of = {**config, **more}
            _, after = run(make, config_of)
            print(f'    {{"{name}{suffix}", {plan(constant, config_of)},')
            print(f"     {floats(after[0])},\n     {floats(after[-1])}}},")
    print("};\n/* For 8 epochs of 3 steps at a rate of 0.5. */")
    print("struct golden_schedule { struct plan_optimizer plan; double rates[GOLDEN_RATES]; };")
    print("static const struct golden_schedule golden_schedules[] = {")
    for members, make in schedules():
        values = ", ".join(f"{x:.17g}" for x in rates(make, 24))
        print(f"    {{{{.learning_rate = 0.5, .schedule = {{{members}}}}},\n     {{{values}}}}},")
    print("};")


if __name__ == "__main__":
    main()
