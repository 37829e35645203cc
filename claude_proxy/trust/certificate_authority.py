"""The certificate authority in its directory: created, loaded, exported, rotated; it signs leaves.

Keeps "the sandbox cannot move its own wall": a CA that another user could have read or written is
not used. `mitmproxy-ca.pem` alone is the CA and is replaced atomically. Every other file is derived
from it, and rewritten when it is missing or belongs to another CA, so a crash leaves nothing
half-done.
"""

import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.trust import constraints
from claude_proxy.trust.certificates import (
    LeafMaker,
    Pair,
    fingerprint_of,
    key_type_of,
    make_authority,
    out_of_date,
    read_authority,
)
from claude_proxy.trust.private_files import PUBLIC, SECRET, Folder
from claude_proxy.trust.published_certificate import (
    AUTHORITY_FILE,
    AUTHORITY_P12_FILE,
    CERTIFICATE_CER_FILE,
    CERTIFICATE_FILE,
    CERTIFICATE_P12_FILE,
    P12_FILES,
)
from claude_proxy.trust.roots import bundle_of, java_truststore_of, system_roots

BUNDLE_FILE = "ca-bundle.pem"
BUNDLE_P12_FILE = "ca-bundle.p12"

_FILES = (
    AUTHORITY_FILE,
    AUTHORITY_P12_FILE,
    CERTIFICATE_FILE,
    CERTIFICATE_CER_FILE,
    CERTIFICATE_P12_FILE,
)
_LEAVES_KEPT = 1024
_RENEW = (
    "make a new one: claude-proxy ca rotate (a running proxy takes it); clients must then trust it"
)

type Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time in whole seconds, the resolution of certificates."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for one host and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    not_before: datetime  # if the clock is set back before it, the leaf is useless
    renew_at: datetime  # half of its life; from then on a new one is signed


@dataclass(frozen=True, slots=True)
class Description:
    """The facts that `claude-proxy ca show` prints."""

    subject: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    key_type: str
    permitted: tuple[str, ...]  # X.509 name constraints; both empty: none
    excluded: tuple[str, ...]
    files: dict[str, int]  # path -> permission bits


class CertificateAuthority:
    """A CA that has been checked and is ready to sign."""

    def __init__(self, confdir: Path, pair: Pair, clock: Clock = utc_now) -> None:
        self.confdir = confdir
        self._clock = clock
        self._file = _state_of(confdir / AUTHORITY_FILE)
        self._adopt(pair)

    def _adopt(self, pair: Pair) -> None:
        self._pair = pair
        self._maker = LeafMaker(pair)
        self._leaves: OrderedDict[str, Leaf] = OrderedDict()

    def refresh(self, *, replace: bool = True) -> None:
        """Read the CA again if its file has changed; ConfigError says what is wrong with it now.

        Then the CA that was read before stays in use: see `is_valid`. Without `replace`, a new CA
        is only taken once the one in use is no longer valid.
        """
        where = self.confdir / AUTHORITY_FILE
        state = _state_of(where)
        if state is None:
            what = "the file of the CA is gone; the one in memory stays in use until a restart"
            raise ConfigError(what, where=str(where), fix=_RENEW)
        if state != self._file and (replace or not self.is_valid):
            with Folder.make(self.confdir) as folder:
                pair = _read(folder, self._clock)
            if pair is not None:
                self._adopt(pair)
                self._file = state
        if problem := out_of_date(self.certificate, self._clock()):
            raise ConfigError(problem, where=str(where), fix=_RENEW)

    @property
    def is_valid(self) -> bool:
        """Whether clients would accept a leaf that is signed now."""
        return out_of_date(self.certificate, self._clock()) is None

    @classmethod
    def load_or_create(cls, confdir: Path, *, clock: Clock = utc_now) -> Self:
        """Load the CA in `confdir`; make one if there is none."""
        with Folder.make(confdir) as folder:
            pair = _read(folder, clock)
            if pair is None or not _is_published(folder, pair):
                with folder.locked():
                    # Read again: another process may have made one, or rotated, meanwhile.
                    pair = _read(folder, clock) or _make(folder, clock, None)
                    _publish(folder, pair)
        return cls(confdir, pair, clock)

    @classmethod
    def load(cls, confdir: Path, *, clock: Clock = utc_now) -> Self:
        """Load the CA in `confdir`; an error says how to make one."""
        if folder := Folder.find(confdir):
            with folder:
                found = folder.modes((AUTHORITY_FILE,))
            if found:
                return cls.load_or_create(confdir, clock=clock)
        raise ClaudeProxyError(
            "there is no CA yet",
            where=str(confdir / AUTHORITY_FILE),
            fix="create it: claude-proxy ca bundle (the first start of claude-proxy does it too)",
        )

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        return self._pair.certificate

    @property
    def certificate_path(self) -> Path:
        """The file for trust stores that *add* to the system's roots."""
        return self.confdir / CERTIFICATE_FILE

    @property
    def bundle_path(self) -> Path:
        """The file for trust stores that *replace* the system's roots."""
        return self.confdir / BUNDLE_FILE

    @property
    def name(self) -> str:
        """The common name under which a trust store lists the CA."""
        names = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else self.certificate.subject.rfc4514_string()

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256 fingerprint, as browsers and `openssl` print it."""
        return fingerprint_of(self.certificate)

    @property
    def not_after(self) -> datetime:
        """The moment from which no client trusts the CA or its leaves."""
        return self.certificate.not_valid_after_utc

    def leaf(self, host: str) -> Leaf:
        """Return a certificate for `host`, a normalised name or IP literal, and its key."""
        now = self._clock()
        leaf = self._leaves.get(host)
        if leaf is None or not leaf.not_before <= now < leaf.renew_at:
            leaf = self._leaves[host] = self._sign(host, now)
        self._leaves.move_to_end(host)
        if len(self._leaves) > _LEAVES_KEPT:
            self._leaves.popitem(last=False)
        return leaf

    def _sign(self, host: str, now: datetime) -> Leaf:
        if problem := out_of_date(self.certificate, now):
            raise ConfigError(
                problem,
                where=str(self.confdir / AUTHORITY_FILE),
                fix=_RENEW,
            )
        certificate = self._maker.make(host, now)
        # Half of what is left: near the CA's expiry even a new leaf is short-lived.
        renew_at = now + (certificate.not_valid_after_utc - now) / 2
        return Leaf(certificate, self._maker.key, certificate.not_valid_before_utc, renew_at)

    def outside(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Return those of `Policy.hosts()` that the CA's name constraints do not cover."""
        found = constraints.constraints_of(self.certificate)
        return constraints.outside(found, patterns)

    def bundle_pem(self) -> bytes:
        """Return the system's roots and this CA in one PEM."""
        return bundle_of(self._pair.certificate_pem(), system_roots())

    def write_bundle(self) -> Path:
        """Bring the bundle file up to date and return its path."""
        wanted = self.bundle_pem()
        with Folder.make(self.confdir) as folder:
            if not _holds(folder, BUNDLE_FILE, wanted):
                with folder.locked():
                    folder.write(BUNDLE_FILE, wanted, PUBLIC)
        return self.bundle_path

    def write_java_truststore(self) -> Path:
        """Write the same certificates as a Java trust store and return its path."""
        with Folder.make(self.confdir) as folder, folder.locked():
            # Always rewritten: PKCS #12 is salted, so no two files are equal.
            folder.write(BUNDLE_P12_FILE, java_truststore_of(self.bundle_pem()), PUBLIC)
        return self.confdir / BUNDLE_P12_FILE

    def describe(self) -> Description:
        """Return the facts about the CA and its files."""
        with Folder.make(self.confdir) as folder:
            modes = folder.modes((*_FILES, BUNDLE_FILE, BUNDLE_P12_FILE))
        found = constraints.constraints_of(self.certificate)
        return Description(
            subject=self.certificate.subject.rfc4514_string(),
            fingerprint=self.fingerprint,
            not_before=self.certificate.not_valid_before_utc,
            not_after=self.not_after,
            key_type=key_type_of(self._pair),
            permitted=constraints.spelled(found.permitted_subtrees if found else None),
            excluded=constraints.spelled(found.excluded_subtrees if found else None),
            files={str(self.confdir / name): mode for name, mode in modes.items()},
        )


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new CA, and where the old one's files are kept."""

    authority: CertificateAuthority
    kept: tuple[Path, ...]


def rotate(
    confdir: Path, constrain: Iterable[str] | None = None, *, clock: Clock = utc_now
) -> Rotation:
    """Replace the CA; `constrain` limits it to these patterns (of `Policy.hosts()`).

    The old CA is not read: rotation is the fix for one that is broken, expired or exposed.
    """
    wanted = None if constrain is None else constraints.constraints_for(constrain)
    with Folder.make(confdir) as folder, folder.locked():
        stamp = f"{clock():%Y%m%dT%H%M%SZ}"
        kept = [path for name in _FILES if (path := folder.keep_aside(name, stamp))]
        pair = _make(folder, clock, wanted)
        _publish(folder, pair)
    authority = CertificateAuthority(confdir, pair, clock)
    authority.write_bundle()
    return Rotation(authority, tuple(kept))


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file does; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(folder: Folder, clock: Clock) -> Pair | None:
    data = folder.read(AUTHORITY_FILE, SECRET)
    if data is None:
        return None
    folder.read(AUTHORITY_P12_FILE, SECRET)  # it contains the key too, so it is checked too
    return read_authority(data, str(folder.path / AUTHORITY_FILE), clock())


def _make(folder: Folder, clock: Clock, wanted: x509.NameConstraints | None) -> Pair:
    pair = make_authority(clock(), socket.gethostname(), wanted)
    folder.write(AUTHORITY_FILE, pair.secret_pem(), SECRET)
    return pair


def _is_published(folder: Folder, pair: Pair) -> bool:
    return (
        _holds(folder, CERTIFICATE_FILE, pair.certificate_pem())
        and _holds(folder, CERTIFICATE_CER_FILE, pair.certificate_pem())
        and len(folder.modes(P12_FILES)) == len(P12_FILES)
    )


def _holds(folder: Folder, name: str, wanted: bytes) -> bool:
    try:
        return folder.read(name, PUBLIC) == wanted
    except ConfigError:
        # A link, or writable by others (mitmproxy writes with the umask). It contains no secret, so
        # it is replaced instead of stopping the start.
        return False


def _publish(folder: Folder, pair: Pair) -> None:
    folder.write(AUTHORITY_P12_FILE, pair.secret_p12(), SECRET)
    folder.write(CERTIFICATE_P12_FILE, pair.certificate_p12(), PUBLIC)
    folder.write(CERTIFICATE_CER_FILE, pair.certificate_pem(), PUBLIC)
    # Last: `_is_published` takes it as the sign that the others are written.
    folder.write(CERTIFICATE_FILE, pair.certificate_pem(), PUBLIC)
