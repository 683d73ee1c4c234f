"""The report: one HTML file and its pictures, made from a run's files only."""
