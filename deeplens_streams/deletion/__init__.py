"""Deleting images and whole tenants, in steps that survive a crash."""
