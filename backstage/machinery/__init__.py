"""What the lesson runs on: files, progress bars, processes. Nothing here knows an Experiment."""
