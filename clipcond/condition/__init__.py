"""From the plan of a prompt to tensors: encoder inputs, one pass of each encoder with its cache, weights, parts, lengths."""
