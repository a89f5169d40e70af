"""Tests of the transcoding layer: real media, real processes."""
