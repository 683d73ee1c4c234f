"""Errors, records, seeds, atomic files and the stage cache. Imports nothing else of radaug."""
