"""HTTP for people and programs: pages, live streams, health and metrics."""
