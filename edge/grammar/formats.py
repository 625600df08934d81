"""String formats as regular expressions: what they allow is what their RFC allows, or a little less.

Less, where the full rule helps nobody: quoted local parts of mail addresses, leap seconds, the year 0000.
A format that is not in the table is an annotation, as JSON Schema has it, and says nothing about the text.
"""

from __future__ import annotations

_LONG_MONTH = "(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])"
_SHORT_MONTH = "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)"
_MONTH_DAY = f"(?:{_LONG_MONTH}|{_SHORT_MONTH}|02-(?:0[1-9]|1\\d|2[0-8]))"
_YEAR = "(?:\\d{3}[1-9]|\\d\\d[1-9]0|\\d[1-9]00|[1-9]000)"
_LEAP_YEAR = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = f"(?:{_YEAR}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_CLOCK = "(?:[01]\\d|2[0-3]):[0-5]\\d"
_TIME = f"{_CLOCK}:[0-5]\\d(?:\\.\\d{{1,9}})?(?:[Zz]|[+-]{_CLOCK})"

# Short names of up to ten labels, or up to three labels of any allowed length: both stay below 253 characters.
_SHORT_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,22}[A-Za-z0-9])?"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = f"(?:{_SHORT_LABEL}(?:\\.{_SHORT_LABEL}){{0,9}}|{_LABEL}(?:\\.{_LABEL}){{0,2}})"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_LOCAL_PART = f"{_ATOM}(?:\\.{_ATOM}){{0,2}}"  # at most 62 of the 64 characters

_OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
_IPV4 = f"{_OCTET}(?:\\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"


def _ipv6() -> str:
    """RFC 3986, appendix A: `::` stands for one or more groups, once."""
    forms = [f"(?:{_H16}:){{6}}{_LS32}"]
    for before in range(8):  # groups in front of `::`
        front = "" if before == 0 else f"{_H16}(?::{_H16}){{{before - 1}}}"
        behind = 7 - before  # groups that may follow it
        back = [f"(?:{_H16}:){{0,{behind - 2}}}{_LS32}"] if behind >= 2 else []
        back += [_H16] if behind >= 1 else []
        forms.append(f"{front}::(?:{'|'.join(back)})?" if back else f"{front}::")
    return f"(?:{'|'.join(forms)})"


_IPV6 = _ipv6()
_PCT = "%[0-9A-Fa-f]{2}"
_UNRESERVED = "[A-Za-z0-9._~!$&'()*+,;=-]"
_PCHAR = f"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|{_PCT})"
_QUERY = f"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|{_PCT})*"
_HOST = f"(?:\\[{_IPV6}\\]|(?:{_UNRESERVED}|{_PCT})*)"
_AUTHORITY = f"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|{_PCT})*@)?{_HOST}(?::\\d{{0,5}})?"
_PATH = f"(?:/{_PCHAR}*)*"
_ABSOLUTE = f"/(?:{_PCHAR}+{_PATH})?"
_TAIL = f"(?:\\?{_QUERY})?(?:#{_QUERY})?"
_URI = f"[A-Za-z][A-Za-z0-9+.-]*:(?://{_AUTHORITY}{_PATH}|{_ABSOLUTE}|{_PCHAR}+{_PATH}|){_TAIL}"
_NO_COLON = f"(?:[A-Za-z0-9._~!$&'()*+,;=@-]|{_PCT})+"
_RELATIVE = f"(?://{_AUTHORITY}{_PATH}|{_ABSOLUTE}|{_NO_COLON}{_PATH}|){_TAIL}"

_N = "\\d{1,9}"
_DURATION_TIME = f"T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S)"
_DURATION_DATE = f"(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)"
_POINTER = "(?:/(?:[^~/]|~[01])*)*"

_VARIABLE = f"(?:\\w|{_PCT})+(?:\\.(?:\\w|{_PCT})+)*(?:\\*|:[1-9]\\d{{0,3}})?"
_EXPRESSION = f"\\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\\}}"  # RFC 6570

FORMATS: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
    "duration": f"^P(?:{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME}|{_N}W)$",
    "email": f"^{_LOCAL_PART}@{_HOSTNAME}$",
    "hostname": f"^{_HOSTNAME}$",
    "ipv4": f"^{_IPV4}$",
    "ipv6": f"^{_IPV6}$",
    "uri": f"^{_URI}$",
    "uri-reference": f"^(?:{_URI}|{_RELATIVE})$",
    "uri-template": f"^(?:[^\\x00-\\x20\\x7f\"'%<>\\\\^`{{|}}]|{_PCT}|{_EXPRESSION})*$",
    "uuid": "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": f"^(?:0|[1-9]\\d{{0,8}})(?:#|{_POINTER})$",
}
