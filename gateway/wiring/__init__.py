"""One builder for each wing: makes its parts, joins them and closes them again."""
