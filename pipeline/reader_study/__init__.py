"""A blinded reader study: its images, its page, and what the readers' answers say."""
