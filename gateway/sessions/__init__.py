"""From a publisher to the outputs: admission, one seat for each user in a call, and the pipeline of its media."""
