"""Model files: where each comes from, its checksum and licence; fetching and verifying them."""
