"""A data set → annotated shards."""
