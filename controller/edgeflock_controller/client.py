"""The service's client: every command of the CLI goes through it, and so may a program.

Errors of the service come out as the `BadInput` that the service raised. httpx is imported when a client is made, so
that `edgeflock --help` does not pay for it.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeflock_deploy.errors import BadInput

if TYPE_CHECKING:
    import httpx

    from edgeflock_deploy.policy.rules import Policy

Json = dict[str, Any]
_TIMEOUT_S = 60.0
_REPLAY_S = 600.0  # a journal of a million events takes its minute
_RECORDS_AT_ONCE = 20  # so that the service's core is never held up for long
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class NotRunning(BadInput):
    """No service answers on this store; one may be starting."""


class Client:
    """Speaks to the service of a store.

    Args:
        store: the store's folder, whose service.json says where the service is.

    Raises:
        NotRunning: no service runs on this store.
    """

    def __init__(self, store: Path) -> None:
        import httpx

        self._store = store
        try:
            service = json.loads((store / "service.json").read_text())
            self.url, token = str(service["url"]), str(service["token"])
            self.broker = str(service["broker"])
        except (OSError, ValueError, KeyError, TypeError):
            raise self._not_running() from None
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=not self.url.startswith("http:"),  # without TLS no certificates are read, which takes 20 ms
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self) -> Json:
        """How many of everything there are, and how many chunk payload bytes the service has published."""
        return self._object("GET", "/v1/status")

    def devices(self) -> list[Json]:
        """All devices."""
        return self._list("/v1/devices")

    def device(self, name: str) -> Json:
        """One device."""
        return self._object("GET", f"/v1/devices/{_segment('device', name)}")

    def tag(self, selector: str, tags: Mapping[str, str], remove: Iterable[str] = (), *, by: str | None = None) -> Json:
        """Give and take tags: {"devices", "changed"}."""
        body = {"selector": selector, "tags": dict(tags), "remove": list(remove), "by": by or _who()}
        return self._object("POST", "/v1/tags", json=body)

    def freeze(self, kind: Literal["device", "model"], name: str, reason: str, *, by: str | None = None) -> Json:
        """Freeze a device or a model: {"kind", "name", "frozen", "changed"}."""
        return self._object("PUT", _freeze(kind, name), json={"reason": reason, "by": by or _who()})

    def unfreeze(self, kind: Literal["device", "model"], name: str, *, by: str | None = None) -> Json:
        """Lift a freeze."""
        return self._object("DELETE", _freeze(kind, name), json={"by": by or _who()})

    def freezes(self) -> list[Json]:
        """Everything frozen, with reason, by whom and since when."""
        return self._list("/v1/freezes")

    def audit(
        self, limit: int = 50, *, rollout: str | None = None, device: str | None = None, model: str | None = None
    ) -> list[Json]:
        """The newest entries of the audit log, oldest first: all, or those that concern what is named."""
        asked = {"limit": str(limit), "rollout": rollout, "device": device, "model": model}
        return self._list("/v1/audit", params={key: value for key, value in asked.items() if value is not None})

    def want_captures(self, device: str, model: str, *, by: str | None = None) -> Json:
        """Ask a device for the inputs that it has kept of a model; the asking, as `captures` gives it."""
        return self._object("POST", _captures(device, model), params={"by": by or _who()})

    def captures(self, device: str, model: str) -> Json:
        """How far the newest asking has come: {"token", "pieces", "have", "refused", "done"}."""
        return self._object("GET", _captures(device, model))

    def captured(self, device: str, model: str) -> bytes:
        """What came of it, for `captured.unpack`."""
        return self._request("GET", f"{_captures(device, model)}/parcel").content

    def bundles(self) -> list[Json]:
        """What is published."""
        return self._list("/v1/bundles")

    def manifests(self, model: str) -> list[Json]:
        """The manifests of a model, each with its `digest`; none if the model is unknown."""
        return self._list(f"/v1/models/{_segment('model', model)}/manifests")

    def put_container(self, sha256: str, data: bytes) -> None:
        """Upload a container."""
        self._request("PUT", f"/v1/containers/{sha256}", content=data)

    def blob(self, sha256: str) -> bytes:
        """The content of a published blob."""
        return self._request("GET", f"/v1/blobs/{sha256}").content

    def register(self, envelope: bytes, *, by: str | None = None) -> Json:
        """Publish a signed manifest whose containers are uploaded."""
        return self._object("POST", "/v1/bundles", content=envelope, params={"by": by or _who()})

    def deploy(
        self,
        model: str,
        variant: str,
        selector: str,
        policy: Policy,
        *,
        version: int | None = None,
        by: str | None = None,
        start_at: float | None = None,
    ) -> Json:
        """Start a rollout, at once or at a time (seconds since 1970)."""
        body: Json = {"model": model, "version": version, "variant": variant, "selector": selector}
        body |= {"policy": policy.model_dump(mode="json"), "by": by or _who(), "start_at": start_at}
        return self._object("POST", "/v1/rollouts", json=body)

    def deploy_auto(
        self,
        model: str,
        selector: str,
        policy: Policy,
        objective: str,
        require: str = "",
        *,
        boards: int = 2,
        runs: int = 3,
        version: int | None = None,
        by: str | None = None,
        start_at: float | None = None,
    ) -> Json:
        """Have boards measure what is not known, then start a rollout of each class's own variant; the campaign."""
        body: Json = {"model": model, "version": version, "selector": selector, "by": by or _who()}
        body |= {"objective": objective, "require": require, "boards": boards, "runs": runs, "start_at": start_at}
        body["policy"] = policy.model_dump(mode="json")
        return self._object("POST", "/v1/campaigns", json=body)

    def measure(
        self, model: str, selector: str, *, boards: int = 2, runs: int = 3, version: int | None = None, by: str = ""
    ) -> Json:
        """Have boards measure what is not known of a version's variants, and nothing more; the campaign."""
        body: Json = {"model": model, "version": version, "selector": selector, "by": by or _who()}
        return self._object("POST", "/v1/campaigns", json=body | {"boards": boards, "runs": runs})

    def campaign(self, name: str) -> Json:
        """How far a campaign is, by its id."""
        return self._object("GET", f"/v1/campaigns/{_segment('campaign', name)}")

    def front(self, model: str, *, version: int | None = None, device_class: str | None = None) -> Json:
        """What boards measured of a version's variants, by class."""
        asked = {"version": version, "class": device_class}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._object("GET", f"/v1/fronts/{_segment('model', model)}", params=params)

    def prospect(self, model: str, variant: str, selector: str, *, version: int | None = None, **choosing: Any) -> Json:
        """What a deployment would bring to whom; nothing is begun.

        With variant `auto`, `choosing` has `objective`, `require` and `boards`, as `deploy_auto` takes them.
        """
        body: Json = {"model": model, "version": version, "variant": variant, "selector": selector}
        return self._object("POST", "/v1/prospects", json=body | choosing)

    def records(self, model: str, devices: Sequence[str]) -> Json:
        """What devices showed in earlier trials, and when they came and went; by device, asked for a few at a time."""
        found: Json = {}
        for start in range(0, len(devices), _RECORDS_AT_ONCE):
            some = list(devices[start : start + _RECORDS_AT_ONCE])
            found |= self._object("POST", "/v1/records", json={"model": model, "devices": some})
        return found

    def rollback(self, model: str, selector: str, *, by: str | None = None) -> Json:
        """Take devices back to what they had committed before: {"rollout", "without_previous"}."""
        return self._object("POST", "/v1/rollbacks", json={"model": model, "selector": selector, "by": by or _who()})

    def rollouts(self) -> list[Json]:
        """All rollouts, oldest first."""
        return self._list("/v1/rollouts")

    def rollout(self, name: str, *, evidence: bool = True) -> Json:
        """One rollout, by its id or an unambiguous beginning of it; with the rows of evidence under its verdict."""
        asked: Json = {} if evidence else {"evidence": False}
        return self._object("GET", f"/v1/rollouts/{_segment('rollout', name)}", params=asked)

    def why(self, name: str, *, at: float | None = None, everything: bool = False) -> Json:
        """What a rollout decided and from what: until now, or until `at`, in seconds since 1970."""
        asked: Json = ({} if at is None else {"at": at}) | ({"everything": True} if everything else {})
        path = f"/v1/rollouts/{_segment('rollout', name)}/why"
        return self._object("GET", path, params=asked, timeout=_REPLAY_S)

    def steer(
        self, name: str, wish: Literal["pause", "resume", "abort"], *, keep: bool = False, by: str | None = None
    ) -> Json:
        """Hold a rollout, let it go on, or end it."""
        return self._object(
            "POST", f"/v1/rollouts/{_segment('rollout', name)}/{wish}", json={"by": by or _who(), "keep": keep}
        )

    def approve(self, name: str, stage: int | None = None, *, by: str | None = None) -> Json:
        """Let a stage (from 1) begin that wants approval; without one, that which the rollout waits for."""
        return self._object(
            "POST", f"/v1/rollouts/{_segment('rollout', name)}/approve", json={"by": by or _who(), "stage": stage}
        )

    def dead_letters(self) -> list[Json]:
        """The newest messages that could not be read."""
        return self._list("/v1/dead-letters")

    def _object(self, method: str, path: str, **content: Any) -> Json:
        answer: Json = self._request(method, path, **content).json()
        return answer

    def _list(self, path: str, **content: Any) -> list[Json]:
        answer: list[Json] = self._request("GET", path, **content).json()
        return answer

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        import httpx

        try:
            response = self._http.request(method, path, **content)
        except httpx.TransportError:
            raise self._not_running() from None
        if response.is_success:
            return response
        try:
            error = response.json()["error"]
            raise BadInput(error["thing"], error["wrong"], error["mend"])
        except (ValueError, KeyError, TypeError):
            raise BadInput(
                "the service", f"failed on {path} (HTTP {response.status_code})", "see what `edgeflock serve` printed"
            ) from None

    def _not_running(self) -> NotRunning:
        return NotRunning(f"the service of {self._store}", "is not running", "start it with `edgeflock serve`")


def _captures(device: str, model: str) -> str:
    return f"/v1/devices/{_segment('device', device)}/captures/{_segment('model', model)}"


def _segment(what: str, name: str) -> str:
    """A name as a part of an address, which it must not change."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"{what} {name!r}", "is no name", "names have letters, digits, '.', '-' and '_'")
    return name


def _freeze(kind: str, name: str) -> str:
    return f"/v1/freezes/{kind}/{_segment(kind, name)}"


def _who() -> str:
    """USER@HOST, as far as this machine knows it: nobody checks it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
