"""The only room that knows LAVIS versions: start-up hook, compatibility, lavis.train, lavis.evaluate."""
