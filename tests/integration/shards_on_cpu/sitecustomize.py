"""Lets accelerate shard on a CPU, in the processes whose PYTHONPATH holds this folder.

PyTorch's FSDP2 shards over gloo as well as over NCCL; accelerate asks for an accelerator before it hands the
model over. So a rank says that it has one for as long as its `AcceleratorState` is made. All else (sharding,
gradients, gathering, checkpoints) is what runs on GPUs.
"""

import os

if os.environ.get("WORLD_SIZE", "1") != "1":
    from typing import Any

    import accelerate.state as state

    original: Any = state.AcceleratorState.__init__

    def with_accelerator(self: Any, *arguments: Any, **options: Any) -> None:
        if options.get("fsdp_plugin") is not None:
            state.PartialState(True)
            shared = state.PartialState._shared_state
            if shared["distributed_type"] == state.DistributedType.MULTI_CPU:
                shared["distributed_type"] = state.DistributedType.MULTI_XPU
        original(self, *arguments, **options)

    state.AcceleratorState.__init__ = with_accelerator
