"""Where a PostgreSQL server is: a URL that shows its password to nobody who does not ask for it."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from verifier.errors import InvalidRequest

SCHEMES = ("postgresql", "postgres")

FIX = "give postgresql://USER@HOST:5432/DATABASE"


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A URL as libpq reads it. Shown, logged and formatted without its password."""

    text: str  #: with the password, if there is one

    @classmethod
    def parse(cls, text: str) -> "DatabaseUrl":
        """The address that a text states.

        Raises:
            InvalidRequest: it is none; nothing of the text is repeated, for it may hold a password.
        """
        scheme, is_there, rest = text.partition("://")
        try:
            urlsplit(text)
        except ValueError:
            is_there = ""
        if not is_there or not rest or scheme not in SCHEMES:
            raise InvalidRequest(
                "the database's URL is not one of PostgreSQL", fix=FIX, pointer="/database_url"
            )
        if "password=" in rest.partition("?")[2]:
            raise InvalidRequest(
                "the database's URL has its password among the parameters",
                fix="give postgresql://USER:PASSWORD@HOST/DATABASE in the environment",
                pointer="/database_url",
            )
        return cls(text)

    @property
    def password(self) -> str | None:
        """As it stands in the URL: quoted."""
        user, is_there, _ = urlsplit(self.text).netloc.rpartition("@")
        return user.partition(":")[2] or None if is_there else None

    def with_password(self, password: str) -> "DatabaseUrl":
        """The same place, with this password."""
        return DatabaseUrl(self._with(quote(password, safe="")))

    def conceal(self, text: str) -> str:
        """A message of a driver, on one line, without the password."""
        line = " ".join(text.split())
        return line if self.password is None else line.replace(self.password, "***")

    def __str__(self) -> str:
        return self.text if self.password is None else self._with("***")

    def __repr__(self) -> str:
        return f"DatabaseUrl({self})"

    def _with(self, password: str) -> str:
        parts = urlsplit(self.text)
        user, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{host}").geturl()
