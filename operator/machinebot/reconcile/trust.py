"""The trust of every authority, kept on every replica: one that stands by has no World and serves verifiers all the same."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import ValidationError

from machinebot.authority.generations import Generation
from machinebot.authority.interface import Directory
from machinebot.authority.rotation import active, in_order
from machinebot.authority.signing import Signer
from machinebot.authority.stored import load
from machinebot.errors import Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import AUTHORITIES, AUTHORITY_LABEL, SECRETS, SELECTOR, Resource
from machinebot.kube.secrets import SecretStore, StoredSecret
from machinebot.kube.watches import MetadataWatch
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.reconcile.authorities import CONTENT, issuer_of, secret_name
from machinebot.reconcile.places import DEFAULT
from machinebot.resources.authority import MachineAuthority, MachineAuthoritySpec, Remote

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.2
"""Pause before a look: the CA Secrets of a new authority come one after the other."""

RETRY_SECONDS: Final = 5.0
"""Pause after a look that failed; meanwhile the last good value is served."""

CA_SELECTOR: Final = f"{SELECTOR},{AUTHORITY_LABEL}"
"""The CA Secrets among all that the operator made."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of one authority: the last good value of each CA."""

    uid: str
    spec: MachineAuthoritySpec
    issuer: str
    generations: Mapping[Purpose, tuple[Generation, ...]]

    @property
    def trust(self) -> TrustBundle:
        """What verifiers need."""
        anchors = (generation.anchor for purpose in Purpose for generation in self.generations.get(purpose, ()))
        return TrustBundle(cluster_name=self.spec.cluster_name, issuer=self.issuer, anchors=tuple(anchors))


class TrustKeeper:
    """The trust of every authority, from MachineAuthorities and CA Secrets as they are stored.

    Args:
        client: The API server; nothing is written.
        namespace: The operator's own, where the CA Secrets are.
        url: Address of our HTTPS, without a slash at the end.
        interval: Seconds between two looks that no watch has asked for.
        directory: Bots, roles and locks, for whom the authorities sign.
        changed: Called after each look.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        url: str,
        interval: float,
        directory: Directory,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._secrets = SecretStore(client)
        self._namespace = namespace
        self._url = url
        self._interval = interval
        self._directory = directory
        self._tell = changed
        self._changed = asyncio.Event()
        self.looked = False
        """Whether everything was read once."""
        self._seen: dict[tuple[str, str], object] = {}
        self._read: dict[tuple[str, Purpose], str] = {}
        self._kept: dict[str, _Kept] = {}
        self._signers: dict[str, tuple[str, Signer]] = {}

    def get(self, name: str) -> TrustBundle:
        """The trust of the authority of that name. A CA that could never be read is missing in it.

        Raises:
            NotFound: There is no such MachineAuthority.
            Unavailable: Nothing of it could be read yet.
        """
        kept = self._kept.get(name)
        if kept is None and self.looked:
            raise NotFound("AuthorityMissing", f"there is no MachineAuthority {name[:64]!r}: correct the address, or create it")
        if kept is not None and kept.spec.remote is not None:
            raise NotFound("AuthorityElsewhere", _elsewhere(name, kept.spec.remote))
        if kept is None or not kept.generations:
            raise Unavailable("AuthorityNotReady", "the CAs of this authority are not there yet: try again in some seconds")
        return kept.trust

    def signer(self, name: str) -> Signer:
        """What the authority of that name signs with, for bots outside of the cluster.

        Raises:
            Denied: There is no such MachineAuthority.
            Unavailable: Nothing of it could be read yet.
        """
        found = self._signers.get(name)
        if found is not None:
            return found[1]
        if self.looked and name not in self._kept:
            raise Denied(
                "AuthorityMissing", f"there is no MachineAuthority {name!r}: create it, or correct the bot's spec.authority"
            )
        kept = self._kept.get(name)
        if kept is not None and kept.spec.remote is not None:
            raise Denied("AuthorityElsewhere", _elsewhere(name, kept.spec.remote))
        raise Unavailable("AuthorityNotReady", "the CAs of this authority are not there yet: try again in some seconds")

    def client_authorities(self) -> bytes:
        """The CAs of identities of bots, of every authority, PEM: who shows one of theirs is heard by the join API."""
        return b"".join(anchor.public for name in sorted(self._kept) for anchor in self._kept[name].trust.of(Purpose.BOT))

    def identity_issuer(self) -> tuple[str, Generation] | None:
        """Who signs for our own HTTPS: the authority `default`, else the first by name. Its cluster name and active CA."""
        for name in sorted(self._kept, key=lambda each: (each != DEFAULT, each)):
            kept = self._kept[name]
            issuer = active(kept.generations.get(Purpose.IDENTITY, ()))
            if issuer is not None:
                return kept.spec.cluster_name, issuer
        return None

    async def run(self) -> None:
        """Keeps it fresh, for ever: by two watches, and by a look now and then that finds what they missed."""
        async with asyncio.TaskGroup() as group:
            for resource, namespace, selector in ((AUTHORITIES, "", ""), (SECRETS, self._namespace, CA_SELECTOR)):
                watch = MetadataWatch(self._client, resource, namespace, selector, self._observe)
                group.create_task(watch.run(), name="trust watch")
            group.create_task(self._follow(), name="trust")

    def _observe(self, resource: Resource, body: Json, gone: bool) -> None:  # noqa: FBT001 - the watch's own signature
        metadata = body["metadata"]
        key = (resource.plural, metadata["name"])
        # The status of an authority changes often, and says nothing that is not in its Secrets.
        version = None if gone else metadata["generation" if resource is AUTHORITIES else "resourceVersion"]
        if self._seen.get(key) != version:
            self._seen[key] = version
            self._changed.set()
        if gone:
            self._seen.pop(key, None)

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            pause = self._interval
            try:
                await self._look()
            except MachinebotError as error:
                log.warning("trust not read", extra={"reason": error.reason, "detail": error.message})
                pause = RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_SECONDS)

    async def _look(self) -> None:
        """Reads the whole; what has not changed is not parsed again."""
        bodies = [body async for page in self._client.pages(AUTHORITIES, "") for body in page.items]
        secrets = {secret.name: secret for secret in await self._secrets.labelled(self._namespace, CA_SELECTOR)}
        kept: dict[str, _Kept] = {}
        for body in bodies:
            name, uid = body["metadata"]["name"], body["metadata"]["uid"]
            known = self._kept.get(name)
            if known is not None and known.uid != uid:
                known = None  # another one of the same name: what was known is another's
            try:
                authority = MachineAuthority.model_validate(body)
            except ValidationError:
                log.warning("authority unreadable", extra={"authority": name})  # its status says what is wrong
                if known is not None:
                    kept[name] = known
                continue
            kept[name] = await self._kept_of(authority, known, secrets)
        self._kept, self.looked = kept, True
        self._sign(kept)
        uids = {each.uid for each in kept.values()}
        self._read = {key: version for key, version in self._read.items() if key[0] in uids}
        self._tell()

    def _sign(self, kept: Mapping[str, _Kept]) -> None:
        """Brings the signers up to date; one of an authority that is gone, or another one of its name, signs no more."""
        signers: dict[str, tuple[str, Signer]] = {}
        for name, each in kept.items():
            if not each.generations:
                continue
            uid, signer = self._signers.get(name, ("", None))
            if signer is None or uid != each.uid:
                signer = Signer(name, each.spec, each.generations, each.issuer, self._directory)
            else:
                signer.update(each.spec, each.generations, each.issuer)
            signers[name] = (each.uid, signer)
        self._signers = signers

    async def _kept_of(self, authority: MachineAuthority, known: _Kept | None, secrets: Mapping[str, StoredSecret]) -> _Kept:
        name, uid = authority.metadata.name, authority.metadata.uid
        generations = {} if known is None else dict(known.generations)
        for purpose in Purpose if authority.spec.remote is None else ():  # Secrets of an earlier one of its name are another's
            secret = secrets.get(secret_name(name, purpose))
            if secret is None or secret.labels.get(AUTHORITY_LABEL) != name:
                continue  # gone, or not made yet: the leader says so
            if self._read.get((uid, purpose)) == secret.resource_version:
                continue
            self._read[uid, purpose] = secret.resource_version
            try:
                # In a thread: keys are checked, which takes its time with RSA.
                generations[purpose] = in_order(await asyncio.to_thread(load, purpose, secret.data.get(CONTENT, b"")))
            except Invalid as error:
                log.warning("trust kept as it was", extra={"authority": name, "purpose": str(purpose), "reason": error.reason})
        issuer = issuer_of(name, authority.spec, self._url)
        if known is not None and (known.spec, known.issuer, known.generations) == (authority.spec, issuer, generations):
            return known
        if known is not None:
            return replace(known, spec=authority.spec, issuer=issuer, generations=generations)
        return _Kept(uid=uid, spec=authority.spec, issuer=issuer, generations=generations)


def _elsewhere(name: str, remote: Remote) -> str:
    return f"the MachineAuthority {name!r} is that of another cluster: ask {remote.url}/authorities/{remote.authority}"
