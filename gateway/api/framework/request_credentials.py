"""Who a request of the API is from: `Authorization` (the token alone, or after Bearer), `api_key` in the query or as `X-Api-Key`, and
`stream-auth-type`, which is `jwt` or `anonymous`."""

from aiohttp import web

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.api.framework.errors import ApiError


def identity_of(request: web.Request, authorizer: Authorizer) -> Identity:
    """Anonymous without a token. Raises `ApiError` and `Rejected` for credentials that are none."""
    kind = request.headers.get("stream-auth-type", "jwt")
    if kind not in ("jwt", "anonymous"):
        raise ApiError(400, "stream-auth-type: jwt or anonymous")
    if kind == "anonymous":
        return Identity()
    scheme, _, token = request.headers.get("Authorization", "").strip().rpartition(" ")
    if scheme.lower() not in ("", "bearer"):
        raise ApiError(401, "send the token as Authorization, alone or after Bearer")
    api_key = request.query.get("api_key") or request.headers.get("X-Api-Key") or ""
    return authorizer.identify(token, api_key=api_key, address=request.remote or "")
