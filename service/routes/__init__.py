"""The endpoints. None of them parses a model, or imports what could."""
