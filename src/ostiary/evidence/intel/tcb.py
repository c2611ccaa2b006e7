"""What Intel's TCB data says of a platform. Pure; the data must have been verified before.

Source: Intel PCS API version 4, "Get SGX TCB Info", "Get TDX TCB Info", "Get Quoting Enclave Identity"; Intel SGX/TDX
Quote Verification Library, checks of TCB levels, of the TDX module, and of a TD's relaunch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ostiary.errors import EvidenceFormatError, EvidenceRefusedError

MAX_LEVELS = 256
"""Levels of one TCB info or identity; Intel's have about twenty."""
COMPONENTS = 16

_PLATFORM_STATUSES = frozenset(
    {
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
        "Revoked",
    }
)
_OUT_OF_DATE = {
    "UpToDate": "OutOfDate",
    "SWHardeningNeeded": "OutOfDate",
    "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
}
"""What a platform's status becomes beside a module or quoting enclave that is out of date."""
_CONFIGURATION = ("ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")


@dataclass(frozen=True, kw_only=True)
class Rating:
    """status: Intel's word. advisories: of all parts. date: of the platform's level, None if it has none.

    superseded, mended: as in `Claims`, of the parts that are out of date.
    """

    status: str
    advisories: frozenset[str]
    date: datetime | None
    superseded: datetime | None = None
    mended: frozenset[str] = frozenset()

    @property
    def is_out_of_date(self) -> bool:
        return self.status in ("OutOfDate", "OutOfDateConfigurationNeeded")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a PCK certificate says. cpu_svn: 16 component numbers."""

    cpu_svn: bytes
    pce_svn: int


def rate_sgx(tcb_info: Mapping[str, object], platform: Platform, qe: Rating) -> Rating:
    """The rating of an SGX platform with this quoting enclave.

    The first level counts none of whose numbers is above the platform's. Raises EvidenceRefusedError: no level matches,
    or something is revoked; EvidenceFormatError: data of another form.
    """
    return _converge(level_of(tcb_info, platform, None), [qe])


def rate_tdx(
    tcb_info: Mapping[str, object], platform: Platform, qe: Rating, *, tee_tcb_svn: bytes, tee_tcb_svn2: bytes | None
) -> Rating:
    """The rating of a TDX platform and its module.

    tee_tcb_svn: 16 bytes of the TD report. tee_tcb_svn2: those of the module that runs now, in TD 1.5 reports; if the
    TD was started under a module that is out of date, and the one that runs now is not, its status is
    TDRelaunchAdvised. Raises as `rate_sgx`.
    """
    launched = _rate_module(tcb_info, platform, qe, tee_tcb_svn)
    if tee_tcb_svn2 is None:
        return launched
    current = _rate_module(tcb_info, platform, qe, tee_tcb_svn2)
    return _together(_relaunch(launched.status, current.status), launched.date, [launched, current])


def rate_by_svn(identity: Mapping[str, object], svn: int, what: str) -> Rating:
    """The rating of an enclave or module whose identity has levels by `isvsvn`. Raises as `rate_sgx`."""
    for level in _levels(identity):
        if svn >= _number(_mapping(level, "tcb"), "isvsvn"):
            return _rating(level, _levels(identity))
    raise EvidenceRefusedError(f"the {what} with SVN {svn} meets no TCB level of the endorsements")


def module_identity(tcb_info: Mapping[str, object], tee_tcb_svn: bytes) -> Mapping[str, object]:
    """The part of TDX TCB info that describes the module: by its major version, which is the second SVN; 0 has none.

    Raises EvidenceRefusedError: the endorsements do not know the module.
    """
    if tee_tcb_svn[1] == 0:
        return _mapping(tcb_info, "tdxModule")
    name = f"TDX_{tee_tcb_svn[1]:02X}"
    identities = tcb_info.get("tdxModuleIdentities")
    for identity in identities if isinstance(identities, list) else ():
        if isinstance(identity, dict) and str(identity.get("id")).upper() == name:
            return identity
    raise EvidenceRefusedError(f"the endorsements do not know the TDX module {name}")


def _rate_module(tcb_info: Mapping[str, object], platform: Platform, qe: Rating, tee_tcb_svn: bytes) -> Rating:
    others = [qe]
    if tee_tcb_svn[1] > 0:
        others.append(rate_by_svn(module_identity(tcb_info, tee_tcb_svn), tee_tcb_svn[0], "TDX module"))
    return _converge(level_of(tcb_info, platform, tee_tcb_svn), others)


def level_of(tcb_info: Mapping[str, object], platform: Platform, tee_tcb_svn: bytes | None) -> Rating:
    """The rating of the platform alone: its first level that counts no number above the platform's own.

    tee_tcb_svn: 16 bytes of a TD report, None for SGX. Raises as `rate_sgx`.
    """
    # The module's own levels rate its first two numbers, if it has a major version.
    first = 2 if tee_tcb_svn is not None and tee_tcb_svn[1] > 0 else 0
    for level in _levels(tcb_info):
        tcb = _mapping(level, "tcb")
        if platform.pce_svn < _number(tcb, "pcesvn") or not _meets(platform.cpu_svn, _sgx_components(tcb)):
            continue
        if tee_tcb_svn is not None and not _meets(tee_tcb_svn[first:], _components(tcb, "tdxtcbcomponents")[first:]):
            continue
        return _rating(level, _levels(tcb_info))
    raise EvidenceRefusedError("the platform meets no TCB level of the endorsements")


def _meets(own: Iterable[int], needed: Iterable[int]) -> bool:
    return all(mine >= theirs for mine, theirs in zip(own, needed, strict=True))


def _converge(platform: Rating, others: Sequence[Rating]) -> Rating:
    """Of the other parts only OutOfDate and Revoked move the status of a platform."""
    statuses = {rating.status for rating in others}
    status = _OUT_OF_DATE.get(platform.status, platform.status) if "OutOfDate" in statuses else platform.status
    ratings = [platform, *others]
    if any(rating.status == "Revoked" for rating in ratings):
        raise EvidenceRefusedError("the TCB level of this platform is revoked")
    return _together(status, platform.date, ratings)


def _together(status: str, date: datetime | None, ratings: Sequence[Rating]) -> Rating:
    """What the parts say together. If one that is out of date was superseded nobody knows when, all of it was."""
    dates = [rating.superseded for rating in ratings if rating.is_out_of_date]
    known = [date for date in dates if date is not None]
    staying = frozenset().union(*(rating.advisories - rating.mended for rating in ratings))
    return Rating(
        status=status,
        advisories=frozenset().union(*(rating.advisories for rating in ratings)),
        date=date,
        superseded=min(known) if known and len(known) == len(dates) else None,
        mended=frozenset().union(*(rating.mended for rating in ratings)) - staying,
    )


def _relaunch(launched: str, current: str) -> str:
    if launched not in ("OutOfDate", "OutOfDateConfigurationNeeded") or current not in _OUT_OF_DATE:
        return launched
    configure = launched == "OutOfDateConfigurationNeeded" or current in _CONFIGURATION
    return "TDRelaunchAdvisedConfigurationNeeded" if configure else "TDRelaunchAdvised"


def _rating(level: Mapping[str, object], levels: Sequence[Mapping[str, object]]) -> Rating:
    """Of one level, by itself and beside the newer ones of `levels`."""
    rating = _alone(level)
    if not rating.is_out_of_date or rating.date is None:
        return rating
    newer = [other for other in map(_alone, levels) if other.date is not None and other.date > rating.date]
    dates = [other.date for other in newer if other.date is not None]
    if not dates:
        return rating
    newest = max(dates)
    staying = frozenset().union(*(other.advisories for other in newer if other.date == newest))
    return replace(rating, superseded=min(dates), mended=rating.advisories - staying)


def _alone(level: Mapping[str, object]) -> Rating:
    status, advisories, date = level.get("tcbStatus"), level.get("advisoryIDs", []), level.get("tcbDate")
    if status not in _PLATFORM_STATUSES:
        raise EvidenceRefusedError(f"the endorsements give a TCB status that is not known here, {str(status)[:40]!r}")
    if not isinstance(advisories, list) or not all(isinstance(advisory, str) for advisory in advisories):
        raise EvidenceFormatError("endorsements: advisoryIDs of a TCB level is not a list of texts")
    try:
        when = None if date is None else _aware(datetime.fromisoformat(str(date)))
    except ValueError as error:
        raise EvidenceFormatError("endorsements: tcbDate of a TCB level is no date") from error
    return Rating(status=str(status), advisories=frozenset(advisories), date=when)


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _levels(part: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    levels = part.get("tcbLevels")
    if not isinstance(levels, list) or len(levels) > MAX_LEVELS or not all(isinstance(level, dict) for level in levels):
        raise EvidenceFormatError(f"endorsements: tcbLevels is not a list of at most {MAX_LEVELS} objects")
    return levels


def _mapping(part: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = part.get(name)
    if not isinstance(value, dict):
        raise EvidenceFormatError(f"endorsements: member {name} is missing or no object")
    return value


def _number(part: Mapping[str, object], name: str) -> int:
    value = part.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EvidenceFormatError(f"endorsements: member {name} is missing or no number")
    return value


def _sgx_components(tcb: Mapping[str, object]) -> list[int]:
    """Of version 3, and of version 2, where each component is a member of its own."""
    if "sgxtcbcomponents" in tcb:
        return _components(tcb, "sgxtcbcomponents")
    return [_number(tcb, f"sgxtcbcomp{number:02}svn") for number in range(1, COMPONENTS + 1)]


def _components(tcb: Mapping[str, object], name: str) -> list[int]:
    components = tcb.get(name)
    if not isinstance(components, list) or len(components) != COMPONENTS:
        raise EvidenceFormatError(f"endorsements: member {name} is not a list of {COMPONENTS} components")
    return [_number(component if isinstance(component, dict) else {}, "svn") for component in components]
