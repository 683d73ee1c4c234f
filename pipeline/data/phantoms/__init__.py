"""Simulated liver lesions on CT: nothing to download, and nothing learned on them holds for patients."""
