"""Why a certificate is not accepted, where its proof is not to blame."""


class Rejected(Exception):
    """The certificate is not accepted, for the reason whose code comes first."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
