"""Who is in the study: sources, manifest, audit, split by patient, leakage, labelled draws."""
