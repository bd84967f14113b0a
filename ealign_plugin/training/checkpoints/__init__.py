"""Checkpoints of a run: folders that are whole or absent, and without a pickle in them.

::

    <run folder>/checkpoints/
        iter_000400/              never changed once it has this name
            manifest.json         what it is, and bytes and SHA-256 of the other files
            weights.safetensors   the trained weights, whole, with the model's recipe as metadata
            optimizer.safetensors the optimiser's tensors, "<parameter>/<key>"; or, sharded:
            shards/*.safetensors  the same, each process its part (torch.distributed.checkpoint)
            state.json            everything else: groups of the optimiser, values, what each process adds
        captioning.json …     small files that the caller adds, e.g. what captioning with the weights needs
        last -> iter_000400       the newest
        best -> iter_000200       the one with the highest metric

A checkpoint is written as ``iter_000400.part``, synced to the disk, and renamed. One that is deleted becomes
``iter_000400.trash`` first. A process that is killed leaves one of these two, which no reader takes for a
checkpoint and which the next `CheckpointStore.save` removes. The links are for people: what is newest or
best is read from the manifests.

Methods and functions that say so are collective: all processes of the default group call them.
"""
