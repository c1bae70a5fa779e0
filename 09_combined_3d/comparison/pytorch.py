# PyTorch on compare's work: the same Llama, batch, type and number of cores, over gloo. Of every technique several
# options are tried, and the fastest is reported, in the form of the course's own reports.
#
# torchrun --standalone --nproc-per-node 2 pytorch.py --technique fsdp2 --report report.json
import argparse
import json
import os
import statistics
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.head = options.dim // options.heads
        self.wq = nn.Linear(options.dim, options.heads * self.head, bias=False)
        self.wk = nn.Linear(options.dim, options.kv_heads * self.head, bias=False)
        self.wv = nn.Linear(options.dim, options.kv_heads * self.head, bias=False)
        self.wo = nn.Linear(options.heads * self.head, options.dim, bias=False)

    def rotated(self, x, cos, sin):
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        # The number of heads is what is here: tensor parallelism leaves a rank some of them.
        q, k, v = (w(x).view(batch, length, -1, self.head).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = self.rotated(q, cos, sin), self.rotated(k, cos, sin)
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(out.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.w1 = nn.Linear(options.dim, options.ffn, bias=False)
        self.w2 = nn.Linear(options.ffn, options.dim, bias=False)
        self.w3 = nn.Linear(options.dim, options.ffn, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.attention_norm = nn.RMSNorm(options.dim, eps=1e-5)
        self.attention = Attention(options)
        self.ffn_norm = nn.RMSNorm(options.dim, eps=1e-5)
        self.feed_forward = FeedForward(options)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """All layers, or those of one pipeline stage: the first has the embedding, the last the head."""

    def __init__(self, options, layers=None, first=True, last=True):
        super().__init__()
        self.tok_embeddings = nn.Embedding(options.vocab, options.dim) if first else None
        self.layers = nn.ModuleList(Block(options) for _ in (layers or range(options.layers)))
        self.norm = nn.RMSNorm(options.dim, eps=1e-5) if last else None
        self.output = nn.Linear(options.dim, options.vocab, bias=False) if last else None
        head = options.dim // options.heads
        frequency = 10000.0 ** (-torch.arange(0, head, 2).float() / head)
        angles = torch.arange(options.length).float()[:, None] * frequency[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):
        if self.tok_embeddings is not None:
            x = self.tok_embeddings(x)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.output(self.norm(x)) if self.output is not None else x


def loss_of(scores, targets):
    return F.cross_entropy(scores.flatten(0, 1).float(), targets.flatten())


def kinds_of(model):
    """Parameters that are DTensors, and those that are not: operations on a whole list take one kind."""
    kinds = {}
    for parameter in model.parameters():
        kinds.setdefault(type(parameter.data), []).append(parameter)
    return list(kinds.values())


def optimizer_of(model):
    groups = [{"params": parameters} for parameters in kinds_of(model)]
    return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def clip(model):
    norms = [nn.utils.get_total_norm([p.grad for p in parameters]) for parameters in kinds_of(model)]
    norms = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    scale = min(1.0, 1.0 / (torch.linalg.vector_norm(torch.stack(norms)).item() + 1e-6))
    for parameters in kinds_of(model):
        torch._foreach_mul_([p.grad for p in parameters], scale)


def plain_step(model, tokens, targets, ranks_of_data=1, rank=0):
    """A step on this rank's part of the batch."""
    optimizer = optimizer_of(model)
    share = tokens.shape[0] // ranks_of_data
    mine = slice(rank * share, (rank + 1) * share)

    def step():
        loss = loss_of(model(tokens[mine]), targets[mine])
        loss.backward()
        clip(model)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, optimizer


def serial(options, tokens, targets, kind):
    model = Llama(options).to(kind)
    return [("eager", lambda: (model, *plain_step(model, tokens, targets)))]


def ddp(options, tokens, targets, kind):
    def variant(**chosen):
        model = nn.parallel.DistributedDataParallel(Llama(options).to(kind), **chosen)
        return model, *plain_step(model, tokens, targets, dist.get_world_size(), dist.get_rank())

    return [
        ("buckets of 25 MB", lambda: variant()),
        ("gradients as bucket views, static graph", lambda: variant(gradient_as_bucket_view=True, static_graph=True)),
        ("buckets of 4 MB, gradients as bucket views", lambda: variant(bucket_cap_mb=4, gradient_as_bucket_view=True)),
    ]


def fsdp2(options, tokens, targets, kind):
    from torch.distributed.fsdp import fully_shard

    def variant(reshard):
        model = Llama(options).to(kind)
        for layer in model.layers:
            fully_shard(layer, reshard_after_forward=reshard)
        fully_shard(model, reshard_after_forward=reshard)
        return model, *plain_step(model, tokens, targets, dist.get_world_size(), dist.get_rank())

    return [("resharding after the forward", lambda: variant(True)), ("no resharding", lambda: variant(False))]


def tp(options, tokens, targets, kind):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel, PrepareModuleInput, RowwiseParallel, SequenceParallel, parallelize_module)

    def variant(sequence_parallel):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
        model = Llama(options).to(kind)
        between = Shard(1) if sequence_parallel else Replicate()
        norm = {"norm": SequenceParallel()} if sequence_parallel else {}
        parallelize_module(model, mesh, {
            "tok_embeddings": RowwiseParallel(input_layouts=Replicate(), output_layouts=between), **norm,
            "output": ColwiseParallel(input_layouts=between, output_layouts=Replicate())})
        plan = {"attention.wq": ColwiseParallel(), "attention.wk": ColwiseParallel(), "attention.wv": ColwiseParallel(),
                "attention.wo": RowwiseParallel(output_layouts=between),
                "feed_forward.w1": ColwiseParallel(), "feed_forward.w3": ColwiseParallel(),
                "feed_forward.w2": RowwiseParallel(output_layouts=between)}
        if sequence_parallel:
            plan |= {"attention_norm": SequenceParallel(), "ffn_norm": SequenceParallel(),
                     "attention": PrepareModuleInput(input_layouts=(between, None, None),
                                                     desired_input_layouts=(Replicate(), None, None)),
                     "feed_forward": PrepareModuleInput(input_layouts=(between,), desired_input_layouts=(Replicate(),))}
        for layer in model.layers:
            parallelize_module(layer, mesh, plan)
        return model, *plain_step(model, tokens, targets)

    return [("without sequence parallelism", lambda: variant(False)), ("sequence parallel", lambda: variant(True))]


def one_f_one_b(options, tokens, targets, kind):
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    rank, ranks = dist.get_rank(), dist.get_world_size()
    layers = [part.tolist() for part in torch.arange(options.layers).tensor_split(ranks)]

    def variant(micro_batches):
        model = Llama(options, layers[rank], rank == 0, rank == ranks - 1).to(kind)
        stage = PipelineStage(model, rank, ranks, torch.device("cpu"))
        schedule = Schedule1F1B(stage, micro_batches, loss_fn=loss_of)
        optimizer = optimizer_of(model)

        def step():
            losses = []
            if rank == 0:
                schedule.step(tokens)
            elif rank == ranks - 1:
                schedule.step(target=targets, losses=losses)
            else:
                schedule.step()
            squares = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum()
            dist.all_reduce(squares)
            scale = min(1.0, 1.0 / (squares.sqrt().item() + 1e-6))
            for p in model.parameters():
                p.grad.mul_(scale)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return torch.stack(losses).mean().item() if losses else 0.0

        return model, step, optimizer

    counts = [m for m in (2, 4, 8) if m >= ranks and options.batch % m == 0]
    return [(f"{m} micro-batches", lambda m=m: variant(m)) for m in counts]


techniques = {"serial": serial, "ddp": ddp, "fsdp2": fsdp2, "tp": tp, "1f1b": one_f_one_b}


def bytes_of(tensors):
    """Of what lies on this rank."""
    return sum(t.to_local().nbytes if hasattr(t, "to_local") else t.nbytes for t in tensors)


def largest(value):
    tensor = torch.tensor(float(value), dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.item()


def measured(make, steps):
    """Median milliseconds of a step without the first two, on the slowest rank; losses; bytes by kind."""
    torch.manual_seed(1)
    model, step, optimizer = make()
    losses, times = [], []
    for _ in range(steps):
        dist.barrier()
        start = time.perf_counter()
        loss = step()
        times.append(largest((time.perf_counter() - start) * 1e3))
        losses.append(largest(loss))
    parameters = list(model.parameters())
    states = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    memory = {"parameters": bytes_of(parameters), "gradients": bytes_of(parameters), "optimizer": bytes_of(states)}
    return times, losses, {kind: {"measured_peak": largest(value)} for kind, value in memory.items()}


def report_of(options):
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[options.dtype]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(options.vocab, (options.batch, options.length + 1), generator=generator)
    best = None
    for name, make in techniques[options.technique](options, tokens[:, :-1], tokens[:, 1:], kind):
        times, losses, memory = measured(make, options.steps)
        median = statistics.median(times[2:] or times)
        if best is None or median < best["summary"]["ms_per_step"]:
            rate = options.batch * options.length / median * 1e3
            best = {"program": "pytorch", "best": name,
                    "steps": [{"step": i, "loss": losses[i], "ms": times[i]} for i in range(options.steps)],
                    "summary": {"tokens_per_second": rate, "ms_per_step": median},
                    "exposed_communication": {"wall_ms_per_step": 0}, "memory": memory, "traffic": {}}
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--technique", choices=techniques, required=True)
    parser.add_argument("--report", required=True)
    parser.add_argument("--dtype", default="f32")
    for name, default in {"layers": 8, "dim": 256, "heads": 8, "kv-heads": 8, "ffn": 704, "vocab": 256, "length": 256,
                          "batch": 8, "steps": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the course's ranks: a core each
    dist.init_process_group("gloo")
    report = report_of(options)
    if dist.get_rank() == 0:
        part = options.report + ".part"
        with open(part, "w") as file:
            json.dump(report, file)
        os.replace(part, options.report)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
