"""What both trainers stand on: keys, sealed folders, logs, checkpoints, identity, interrupts."""
