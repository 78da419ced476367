"""Measurements of speed: ours beside other people's, on the machine at hand.

    python -m benchmarks                                half an hour on one core
    python -m benchmarks step --widths 8                one part, one width
    python -m benchmarks --contenders jax --rows a.jsonl
                                                        ours against JAX alone, kept as rows

Contenders get the same weights and inputs, must first agree with recall-arena in outputs and
gradients, and take turns round by round.  Each part is one file: operations, block, step,
evaluation, long, threads.
"""
