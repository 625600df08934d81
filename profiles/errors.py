"""The errors that `profiles` raises on purpose.

    ProfileError
    ├── DeviceProfileError  a device profile that cannot be read or says something that is not allowed
    ├── UnknownShape        a model whose memory cannot be told from what is known of it
    ├── PinError            an option that the user has fixed to something that does not exist
    └── NothingFits         no allowed combination fits the memory that is free

The message is one line: what was found, what is allowed, what to do. Facts are attributes. Detecting a device
raises nothing: what cannot be read is unknown, with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiles.plan import Candidate


class ProfileError(Exception):
    """Base of every error that a caller may show to a user as it is."""


class DeviceProfileError(ProfileError):
    """A device profile that is not TOML, has unknown keys, or values outside their range."""


class UnknownShape(ProfileError):
    """The architecture, or a number that its memory depends on, is not known."""


class PinError(ProfileError):
    """The user asked for a quantization, context or type that this model does not have."""


class NothingFits(ProfileError):
    """Even the smallest allowed combination needs more than may be used. candidates: all that were looked at."""

    def __init__(
        self, message: str, *, needed_bytes: int, budget_bytes: int, candidates: tuple[Candidate, ...]
    ) -> None:
        super().__init__(message)
        self.needed_bytes, self.budget_bytes = needed_bytes, budget_bytes
        self.missing_bytes = needed_bytes - budget_bytes
        self.candidates = candidates
