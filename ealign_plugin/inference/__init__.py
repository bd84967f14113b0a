"""A trained model at work: both passes, evaluation, and captioning any photo and article."""
