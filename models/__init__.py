"""Faust Records and enums: what goes over the wire and into tables, nothing else."""
