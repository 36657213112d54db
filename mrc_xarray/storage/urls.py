"""URLs as text: how to remove their secrets, and how to name another file in the same folder."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote

__all__ = ["has_encoded_names", "redacted", "scrubbed", "secrets_of", "sibling"]

# a URL within a text ends at white space, a quotation mark or an angle bracket
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def redacted(url: str) -> str:
    """Return a URL without user, password, query string and fragment.

    In a chain such as ``simplecache::https://host/x.mrc`` each URL is redacted. A path is returned
    unchanged.
    """
    if "://" not in url:
        return url
    return "::".join(_without_secrets(part) for part in url.split("::"))


def scrubbed(text: str, secrets: frozenset[str]) -> str:
    """Return the message of another package with its URLs redacted and all secrets removed."""
    text = _URL.sub(lambda found: redacted(found[0]), text)
    for secret in sorted(secrets, key=len, reverse=True):
        # a short secret may also be part of a word
        word = re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(word, "…", text)
    return text


def secrets_of(url: str) -> frozenset[str]:
    """Return the users, passwords, query strings and their values, and fragments of a URL."""
    found: set[str] = set()
    for part in url.split("::"):
        userinfo, query, fragment = _secret_parts(part)
        found |= {userinfo, *userinfo.split(":", 1), query, fragment}
        found |= {value for _, value in parse_qsl(query)}
    found |= {form(secret) for secret in found for form in (quote, unquote)}
    return frozenset(found - {""})


def has_encoded_names(url: str) -> bool:
    """Return whether file names in a URL are percent-encoded: those of HTTP, and not those of S3.

    In a chain such as ``simplecache::https://host/x.mrc``, the first URL names the file.
    """
    return re.match(r"(?:\w+::)*https?://", url) is not None


def sibling(path: str, name: str) -> str:
    """Return the path or URL of another file, by its decoded name, in the same folder."""
    # a query string belongs to one file, and may contain slashes; a path may contain ? and #
    without_query = re.split("[?#]", path)[0] if "://" in path else path
    folder, slash, _ = without_query.rpartition("/")
    return folder + slash + (quote(name, safe="") if has_encoded_names(path) else name)


def _without_secrets(part: str) -> str:
    userinfo = _secret_parts(part)[0]
    scheme, separator, rest = part.partition("://")
    if not separator:
        return part.partition("?")[0]
    return scheme + separator + re.split("[?#]", rest.removeprefix(f"{userinfo}@"))[0]


def _secret_parts(part: str) -> tuple[str, str, str]:
    """Return user and password, query string, and fragment of one part of a chain."""
    rest, userinfo = part, ""
    if "://" in part:
        rest = part.partition("://")[2]
        authority = re.split("[/?#]", rest)[0]
        port = authority.rpartition(":")[2] if ":" in authority else ""
        # a password that should be percent-encoded may contain what ends the authority
        ends_early = "@" not in authority and port and not port.isdigit()
        userinfo = (rest if ends_early else authority).rpartition("@")[0]
    path_and_query, _, fragment = rest.removeprefix(f"{userinfo}@").partition("#")
    return userinfo, path_and_query.partition("?")[2], fragment
