"""Controls of a test: rows of its table that say what else could explain the figure of the main context.

Each asks one question that a reviewer would ask, and costs at most as much as another context::

    random_sentences, most_names, tfidf     is it the choice of sentences, or any text of that length?
    renamed                                 are names read, or recognised?
    other_photo, _pass1, _pass2, blank      is the photo looked at, and in which pass?
    twin_table                              would a table of names do as well, without a model?
    oracle_other_scene                      are names chosen by the photo, or is everything copied?

`ealign_plugin.inference.controls.names` lists them; `ealign_plugin.inference.controls.run` captions a batch.
"""
