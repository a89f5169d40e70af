"""Adobe's challenge: the right answer once, and no way to guess."""

import re
from base64 import b64encode
from hashlib import md5

from protocols.rtmp.authmod import AdobeAuthenticator, ChallengeRefused, Proved

SECOND = 1_000_000_000


def authenticator() -> AdobeAuthenticator:
    return AdobeAuthenticator("auth", {"bob": "secret"}.get)


def challenge(judge: AdobeAuthenticator, user: str = "bob", address: str = "192.0.2.1", now: int = 0) -> dict[str, str]:
    refused = judge.judge({"authmod": "adobe", "user": user}, address, now)
    assert isinstance(refused, ChallengeRefused)
    assert not refused.failed
    return dict(re.findall(r"(\w+)=([^&]+)", refused.description.partition("?")[2]))


def digest(text: str) -> str:
    return b64encode(md5(text.encode()).digest()).decode()


def answer(fields: dict[str, str], password: str = "secret", user: str = "bob") -> dict[str, str]:
    inner = digest(user + fields["salt"] + password)
    response = digest(inner + fields["opaque"] + "0123abcd")
    return {"authmod": "adobe", "user": user, "challenge": "0123abcd", "response": response, "opaque": fields["opaque"]}


def failed(verdict: Proved | ChallengeRefused) -> bool:
    return isinstance(verdict, ChallengeRefused) and verdict.failed


def test_three_steps() -> None:
    judge = authenticator()
    first = judge.judge({}, "192.0.2.1", 0)
    assert isinstance(first, ChallengeRefused)
    assert "code=403 need auth; authmod=adobe" in first.description
    assert judge.judge(answer(challenge(judge)), "192.0.2.1", SECOND) == Proved("bob")


def test_a_wrong_password_an_unknown_user_and_another_user_fail_alike() -> None:
    judge = authenticator()
    wrong = judge.judge(answer(challenge(judge), "guess"), "192.0.2.1", 0)
    unknown = judge.judge(answer(challenge(judge, "eve"), user="eve"), "192.0.2.2", 0)
    other = judge.judge(answer(challenge(judge, "eve")), "192.0.2.3", 0)
    assert wrong == unknown == other
    assert failed(wrong)


def test_a_challenge_is_good_once_and_for_30_seconds() -> None:
    judge = authenticator()
    right = answer(challenge(judge))
    assert judge.judge(right, "192.0.2.1", 0) == Proved("bob")
    assert failed(judge.judge(right, "192.0.2.1", 0))
    assert failed(judge.judge(answer(challenge(judge)), "192.0.2.1", 31 * SECOND))


def test_a_wrong_answer_uses_the_challenge_up() -> None:
    judge = authenticator()
    fields = challenge(judge)
    assert failed(judge.judge(answer(fields, "guess"), "192.0.2.1", 0))
    assert failed(judge.judge(answer(fields), "192.0.2.1", 0))


def test_after_three_failures_an_address_waits() -> None:
    judge = authenticator()
    for _ in range(3):
        verdict = judge.judge(answer(challenge(judge), "guess"), "192.0.2.1", 0)
        assert isinstance(verdict, ChallengeRefused)
        assert verdict.delay == 0
    for address, now, delay in (("192.0.2.1", 59, 2 * SECOND), ("192.0.2.9", 59, 0), ("192.0.2.1", 61, 0)):
        verdict = judge.judge(answer(challenge(judge, now=now * SECOND), "guess"), address, now * SECOND)
        assert isinstance(verdict, ChallengeRefused)
        assert verdict.delay == delay


def test_what_an_attacker_can_leave_behind_is_bounded() -> None:
    judge = authenticator()
    first = challenge(judge)
    for number in range(5000):
        challenge(judge, f"user{number}")
        judge.judge({"authmod": "adobe", "user": "bob", "response": "x"}, f"address{number}", 0)
    assert failed(judge.judge(answer(first), "192.0.2.1", 0)), "the oldest challenge has gone"
    long_name = judge.judge({"authmod": "adobe", "user": "x" * 10_000}, "192.0.2.1", 0)
    assert isinstance(long_name, ChallengeRefused)
    assert len(long_name.description) < 100
