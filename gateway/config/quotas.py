"""How much one caller may ask of the gateway."""

from pydantic import Field

from gateway.config.values import Section


class QuotasConfig(Section):
    """How much one user may ask of the API; an application's server, and all of one address together, ten times as much. 0: no limit."""

    requests_per_minute: int = Field(default=1200, ge=0, le=1_000_000, description="Requests; a sixth of them at once.")
    lists_per_minute: int = Field(
        default=120,
        ge=0,
        le=1_000_000,
        description="Of these, requests for lists, which cost more: calls, members, users, streams, keys.",
    )
    calls_per_hour: int = Field(
        default=100, ge=0, le=100_000, description="Calls that a user may create; servers are not bound."
    )
    open_calls: int = Field(
        default=100, ge=0, le=100_000, description="Calls of a user's own making that have not ended; servers are not bound."
    )
    keep_ended_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="How long calls are kept after they have ended, with members and keys; 0: for ever.",
    )
