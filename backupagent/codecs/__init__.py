"""Compressions of snapshots, as a table; a snapshot's suffix alone decides which one reads it."""
