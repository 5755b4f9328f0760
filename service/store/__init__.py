"""The record of truth: models, jobs, events and certificates in one SQL database."""
