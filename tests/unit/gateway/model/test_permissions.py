"""The rule of who may do what: role by action by state of the call, as a table."""

import pytest

from gateway.model.permissions import ALL, BUILT_IN, Allowed, CallState, Capability, Denied, Grants, Role, above, allowed
from protocols.errors import Reason

LIVE, BACKSTAGE, ENDED = CallState(), CallState(backstage=True), CallState(ended=True)
BLOCKED, PUBLIC = CallState(blocked=True), CallState(public=True)
STATES = {"live": LIVE, "backstage": BACKSTAGE, "ended": ENDED, "blocked": BLOCKED, "public": PUBLIC}

# What may be done in a livestream, by role: in which states, in this order: live, backstage, ended, blocked, public.
#                                  admin  host   cohost mod.   viewer invit. user   guest  anonymous
MATRIX: dict[str, tuple[str, ...]] = {
    "create-call":       ("LBE-P", "-----", "-----", "-----", "-----", "-----", "LBE-P", "-----", "-----"),
    "read-call":         ("LBE-P", "LBE-P", "LBE-P", "LBE-P", "LBE-P", "LBE-P", "LBE-P", "LBE-P", "----P"),
    "update-call":       ("LBE-P", "LBE-P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "delete-call":       ("LBE-P", "-----", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "end-call":          ("LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "join-call":         ("LB--P", "LB--P", "LB--P", "LB--P", "L---P", "LB--P", "L---P", "L---P", "----P"),
    "join-backstage":    ("LB--P", "LB--P", "LB--P", "LB--P", "-----", "LB--P", "-----", "-----", "-----"),
    "send-audio":        ("LB--P", "LB--P", "LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "send-video":        ("LB--P", "LB--P", "LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "go-live":           ("LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "start-broadcast":   ("LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "block-users":       ("LB--P", "LB--P", "-----", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "kick-users":        ("LB--P", "LB--P", "-----", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "mute-users":        ("LB--P", "LB--P", "-----", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "update-members":    ("LBE-P", "LBE-P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
    "create-reaction":   ("LB--P", "LB--P", "LB--P", "LB--P", "L---P", "LB--P", "L---P", "L---P", "-----"),
    "send-event":        ("LB--P", "LB--P", "LB--P", "LB--P", "L---P", "LB--P", "L---P", "L---P", "-----"),
    "list-streams":      ("LB--P", "LB--P", "LB--P", "LB--P", "L---P", "LB--P", "L---P", "L---P", "----P"),
    "end-stream":        ("LB--P", "LB--P", "-----", "LB--P", "-----", "-----", "-----", "-----", "-----"),
    "create-stream-key": ("LB--P", "LB--P", "-----", "-----", "-----", "-----", "-----", "-----", "-----"),
}  # fmt: skip
ROLES = (
    Role.ADMIN,
    Role.HOST,
    Role.COHOST,
    Role.MODERATOR,
    Role.VIEWER,
    Role.INVITED,
    Role.USER,
    Role.GUEST,
    Role.ANONYMOUS,
)


def may(role: str, capability: str, state: CallState, kind: str = "livestream") -> bool:
    return isinstance(allowed(BUILT_IN[kind], [role], Capability(capability), state), Allowed)


def capabilities(grants: Grants, roles: list[str], state: CallState) -> frozenset[Capability]:
    return frozenset(each for each in Capability if isinstance(allowed(grants, roles, each, state), Allowed))


@pytest.mark.parametrize("capability", list(Capability))
def test_the_livestream_matrix(capability: str) -> None:
    found = tuple(
        "".join(letter if may(role, capability, state) else "-" for letter, state in zip("LBEXP", STATES.values(), strict=True))
        for role in ROLES
    )
    assert found == MATRIX[capability]


def test_the_matrix_has_every_action() -> None:
    assert MATRIX.keys() == set(Capability)


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.parametrize("role", Role)
def test_who_is_blocked_may_do_nothing_and_an_ended_call_takes_no_part_of_anybody(kind: str, role: str) -> None:
    assert not capabilities(BUILT_IN[kind], [role], BLOCKED)
    over = capabilities(BUILT_IN[kind], [role], ENDED)
    assert not over & {Capability.JOIN_CALL, Capability.SEND_AUDIO, Capability.SEND_VIDEO, Capability.GO_LIVE}


def test_roles_add_up_and_unknown_ones_give_nothing() -> None:
    grants = BUILT_IN["livestream"]
    both = capabilities(grants, [Role.VIEWER, Role.HOST], BACKSTAGE)
    assert both == capabilities(grants, [Role.HOST], BACKSTAGE)
    assert capabilities(grants, ["magician"], LIVE) == frozenset()
    assert capabilities(grants, [], LIVE) == frozenset()
    assert capabilities({"magician": ALL}, ["magician"], LIVE) == ALL


@pytest.mark.parametrize(
    ("kind", "role", "can", "cannot"),
    [
        ("default", Role.USER, "send-video", "go-live"),
        ("default", Role.ANONYMOUS, "", "join-call"),
        ("audio_room", Role.SPEAKER, "send-audio", "send-video"),
        ("audio_room", Role.USER, "join-call", "send-audio"),
        ("development", Role.GUEST, "delete-call", ""),
        ("development", Role.ANONYMOUS, "", "join-call"),
    ],
)
def test_the_other_built_in_types(kind: str, role: str, can: str, cannot: str) -> None:
    assert not can or may(role, can, LIVE, kind)
    assert not cannot or not may(role, cannot, LIVE, kind)


def test_a_public_call_may_be_watched_whatever_its_type_and_nothing_more() -> None:
    public = capabilities(BUILT_IN["default"], [Role.ANONYMOUS], PUBLIC)
    assert public == {Capability.READ_CALL, Capability.JOIN_CALL, Capability.LIST_STREAMS}


@pytest.mark.parametrize(
    "state", [BACKSTAGE, ENDED, CallState(backstage=True, public=True), CallState(ended=True, public=True)]
)
def test_who_is_nobody_reads_what_is_open_now_and_nothing_else(state: CallState) -> None:
    open_to_all: Grants = {Role.ANONYMOUS: frozenset({Capability.READ_CALL, Capability.JOIN_CALL})}
    assert capabilities(open_to_all, [Role.ANONYMOUS], LIVE) == open_to_all[Role.ANONYMOUS]
    assert not capabilities(open_to_all, [Role.ANONYMOUS], state)
    only_read: Grants = {Role.ANONYMOUS: frozenset({Capability.READ_CALL})}
    assert not capabilities(only_read, [Role.ANONYMOUS], LIVE), "what nobody may enter is not open"


@pytest.mark.parametrize(
    ("kind", "roles", "given", "lacking"),
    [
        ("livestream", [Role.HOST], Role.ADMIN, "delete-call"),
        ("livestream", [Role.HOST, Role.USER], Role.ADMIN, "delete-call"),
        ("livestream", [Role.ADMIN], Role.ADMIN, ""),
        ("livestream", [Role.HOST], Role.HOST, ""),
        ("livestream", [Role.COHOST], Role.HOST, "go-live"),
        ("livestream", [Role.MODERATOR], Role.COHOST, ""),
        ("default", [Role.HOST], Role.USER, ""),  # what every user is gives nobody anything
        ("livestream", [Role.HOST], "magician", ""),
    ],
)
def test_nobody_gives_a_role_above_their_own(kind: str, roles: list[str], given: str, lacking: str) -> None:
    found = above(BUILT_IN[kind], roles, given)
    assert Capability(lacking) in found if lacking else not found
    assert above({}, roles, Role.ADMIN), "a type that grants nothing yet may come to"


@pytest.mark.parametrize(
    ("role", "capability", "state", "reason", "words"),
    [
        (Role.ANONYMOUS, Capability.SEND_VIDEO, LIVE, Reason.UNAUTHORIZED, "without a token"),
        (Role.USER, Capability.SEND_VIDEO, LIVE, Reason.FORBIDDEN, "make you a host"),
        (Role.USER, Capability.JOIN_CALL, BACKSTAGE, Reason.FORBIDDEN, "backstage"),
        (Role.HOST, Capability.SEND_VIDEO, ENDED, Reason.FORBIDDEN, "has ended"),
        (Role.ADMIN, Capability.READ_CALL, BLOCKED, Reason.FORBIDDEN, "blocked"),
        (Role.GUEST, Capability.GO_LIVE, LIVE, Reason.FORBIDDEN, "it takes go-live"),
    ],
)
def test_a_refusal_says_what_to_do(role: Role, capability: Capability, state: CallState, reason: Reason, words: str) -> None:
    verdict = allowed(BUILT_IN["livestream"], [role], capability, state)
    assert isinstance(verdict, Denied)
    assert verdict.reason is reason
    assert words in verdict.why
