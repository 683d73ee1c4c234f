"""From files to arrays: readers, cohort, batches, phantoms, and the stages ingest and prepare."""
