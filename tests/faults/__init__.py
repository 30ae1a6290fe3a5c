"""Faults in every command that writes: kills, signals, full disks, two writers, lost workers."""
