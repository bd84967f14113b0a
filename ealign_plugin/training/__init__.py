"""A training run, without LAVIS.

::

    options                 what `run` says about the training: defaults, help, ranges
    loaders                 data sets → DataLoaders
    loop                    steps, inner epochs, validations, checkpoints; built on
      accumulation            one step of several batches and processes
      precision               half precision
      schedule                the learning rate of each iteration
      metric_log, progress    log.txt, metrics.json, the progress bar
      signals, bad_batch      what ends a run early
    optimizer               AdamW and its groups
    sharding                a model on several processes; torch_interfaces: what of torch may still move
    run_state, resume       how far a run is; into checkpoints and back
    checkpoints/            folders that are whole or absent

`ealign_plugin.registered.runner` joins them with LAVIS's RunnerIter.
"""
