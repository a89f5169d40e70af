"""Fan-out processes: viewers of the embedded call who are served by processes of their own, so that all cores have a part in it."""
