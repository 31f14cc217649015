"""What every service stands on: the log, the stage loop, configuration, metrics and the command line."""
