"""What each route of the API does, by subject."""
