"""The JSON of the interface as pydantic models: what `openapi.yaml` and the schemas say."""
