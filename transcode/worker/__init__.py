"""All that imports libav: runs in worker processes alone, and nothing outside imports it."""
