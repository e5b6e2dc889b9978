"""The public operations, each with a reference and faster implementations; :mod:`.backend` says which one runs."""

from .backend import BackendUnavailable, SlowerBackendWarning, use

__all__ = ["BackendUnavailable", "SlowerBackendWarning", "use"]
