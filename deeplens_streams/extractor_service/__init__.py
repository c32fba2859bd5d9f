"""The extraction service: the model as stateless HTTP."""
