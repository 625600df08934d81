"""send_email: through a configured SMTP server, or as a file into an outbox folder of the workspace."""

from __future__ import annotations

import os
import re
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from edge.tools.executable import Arguments, CallContext, ToolFailure
from edge.tools.workspace import Workspace

_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailOptions:
    """Where mail goes. host unset: into the outbox. password_env: the environment variable with the password."""

    sender: str | None = None
    outbox: str | None = None
    host: str | None = None
    port: int = 587
    security: str = "starttls"  # starttls, tls, none
    user: str | None = None
    password_env: str | None = None


def send_email(workspace: Workspace, options: MailOptions, arguments: Arguments, context: CallContext) -> str:
    """Says who got it, or which file it is."""
    if options.host is None and options.outbox is None:
        raise ToolFailure(
            "no mail server and no outbox folder is configured; tell the user that mail cannot be sent"
        )
    message = _message(options, arguments)
    if options.host is not None:
        _deliver(message, options, context)
        return f"sent to {message['To']}"
    assert options.outbox is not None
    name = re.sub(r"[^\w-]+", "-", str(message["Message-ID"]).strip("<>").partition("@")[0])
    path = f"{options.outbox}/{name}.eml"
    workspace.replace_file(path, bytes(message))
    return f"put into the outbox as {path}; it is not sent yet"


def _message(options: MailOptions, arguments: Arguments) -> EmailMessage:
    message = EmailMessage()
    try:
        message["From"] = options.sender or "smoltools-edge@localhost"
        message["To"] = ", ".join(_addresses(arguments["to"]))
        if arguments.get("cc"):
            message["Cc"] = ", ".join(_addresses(arguments["cc"]))
        message["Subject"] = str(arguments["subject"])
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain="smoltools-edge")
        message.set_content(str(arguments["body"]))
    except (ValueError, UnicodeError) as exc:
        raise ToolFailure(f"that is no valid email: {exc}") from None
    return message


def _addresses(value: object) -> list[str]:
    assert isinstance(value, list)
    for address in value:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise ToolFailure(f"{address!r} is no email address; name@host is needed")
    return value


def _deliver(
    message: EmailMessage,
    options: MailOptions,
    context: CallContext,
    environment: Mapping[str, str] = os.environ,
) -> None:
    assert options.host is not None
    timeout_s = max(1.0, min(20.0, context.remaining_s))
    tls = ssl.create_default_context()
    try:
        server: smtplib.SMTP = (
            smtplib.SMTP_SSL(options.host, options.port, timeout=timeout_s, context=tls)
            if options.security == "tls"
            else smtplib.SMTP(options.host, options.port, timeout=timeout_s)
        )
        with server:
            if options.security == "starttls":
                server.starttls(context=tls)
            if options.user is not None:
                server.login(options.user, environment.get(options.password_env or "", ""))
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as exc:
        raise ToolFailure(f"the mail server {options.host} did not take it: {exc}") from None
