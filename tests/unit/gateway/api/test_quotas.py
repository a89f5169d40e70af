"""What a caller of the API is told who asks too often, or makes too many calls."""

from pathlib import Path

from gateway.config import QuotasConfig
from tests.support.api import api_stage


async def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with api_stage(tmp_path, quotas=QuotasConfig(requests_per_minute=600, lists_per_minute=12)) as api:
        for _ in range(2):
            await api.ok("POST", "/calls", {}, user="ann")
        refused = await api.ask("POST", "/calls", {}, user="ann")
        assert (refused.status, refused.body["code"]) == (429, "too_many_requests")
        assert "too many requests for lists: wait 5 s" in refused.body["message"]
        assert refused.headers["Retry-After"] == "5"
        assert (await api.ask("POST", "/call/livestream/mine", {}, user="ann")).status == 201
        assert (await api.ask("POST", "/calls", {}, user="bob")).status == 200


async def test_a_user_makes_so_many_calls_and_an_applications_server_any_number(tmp_path: Path) -> None:
    async with api_stage(tmp_path, quotas=QuotasConfig(calls_per_hour=4, open_calls=2)) as api:
        for name in ("one", "two", "one"):
            await api.ok("POST", f"/call/livestream/{name}", {}, user="ann")
        refused = await api.ask("POST", "/call/livestream/three", {}, user="ann")
        assert (refused.status, "2 calls that have not ended" in refused.body["message"]) == (429, True)
        await api.ok("POST", "/call/livestream/one/mark_ended", user="ann")
        assert (await api.ask("POST", "/call/livestream/three", {}, user="ann")).status == 201
        await api.ok("DELETE", "/call/livestream/three")
        refused = await api.ask("POST", "/call/livestream/four", {}, user="ann")
        assert "too many calls in the last hour" in refused.body["message"], "deleting them is no way around it"
        for number in range(6):
            await api.ok("POST", f"/call/livestream/served-{number}", {"data": {"created_by_id": "ann"}})


async def test_a_list_has_so_many_bytes_and_goes_on_on_the_next_page(tmp_path: Path) -> None:
    async with api_stage(tmp_path) as api:
        users = [f"user-{number:03}" for number in range(100)]
        for few in (users[n : n + 10] for n in range(0, 100, 10)):
            given = [{"id": each, "custom": {"text": "x" * 4900}, "image": "https://example.org/" + "y" * 1000} for each in few]
            await api.ok("POST", "/users", {"users": given})
        members = [{"user_id": each} for each in users]
        await api.ok("POST", "/call/livestream/large", {"data": {"created_by_id": "user-000", "members": members}})
        for path, shown in (("/users/query", "users"), ("/call/livestream/large/members/query", "members")):
            found, cursor, pages = [], None, 0
            while pages == 0 or cursor:
                body = {"limit": 100} | ({"next": cursor} if cursor else {})
                answer = await api.ask("POST", path, body)
                assert int(answer.headers["Content-Length"]) < 280_000
                found += [each.get("user_id") or each["id"] for each in answer.body[shown]]
                cursor, pages = answer.body["next"], pages + 1
            assert sorted(found) == users
            assert pages > 2
        whole = await api.ask("GET", "/call/livestream/large")
        assert int(whole.headers["Content-Length"]) < 280_000
        assert 20 < len(whole.body["members"]) < 100


async def test_calls_with_much_in_them_go_on_on_the_next_page_in_both_directions(tmp_path: Path) -> None:
    async with api_stage(tmp_path) as api:
        names = [f"large-{number:02}" for number in range(80)]
        for name in names:
            data = {"created_by_id": "ann", "custom": {"text": "x" * 4900}}
            await api.ok("POST", f"/call/livestream/{name}", {"data": data})
        mine = {"filter_conditions": {"created_by_user_id": "ann"}}
        body = mine | {"sort": [{"field": "id", "direction": 1}], "limit": 100}
        first = await api.ok("POST", "/calls", body)
        second = await api.ok("POST", "/calls", {**body, "next": first["next"]})
        assert [each["call"]["id"] for each in (*first["calls"], *second["calls"])] == names
        back = await api.ok("POST", "/calls", {**body, "prev": second["prev"]})
        assert back["calls"] == first["calls"]
