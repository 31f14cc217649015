"""Version 1 of the messages and doors, generated from the .proto files beside this one."""
