"""What changes in the store takes effect here: whoever has lost a right is put out at once."""
