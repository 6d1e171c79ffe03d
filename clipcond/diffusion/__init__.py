"""The only place that imports diffusers: pipelines in, keyword arguments out, pictures."""
