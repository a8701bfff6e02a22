"""Settings fields that know their description and bounds: one source for checks, JSON and JSON Schema.

See `field` for what a settings class is.
"""

from manyview_server.learn.schema.description import json_schema
from manyview_server.learn.schema.field import Pattern, changed, setting, settings_by_name
from manyview_server.learn.schema.reading import check, merge, read, resolve
from manyview_server.learn.schema.values import to_json
from manyview_server.learn.schema.violations import SettingsError, Violation

__all__ = [
    "Pattern",
    "SettingsError",
    "Violation",
    "changed",
    "check",
    "json_schema",
    "merge",
    "read",
    "resolve",
    "setting",
    "settings_by_name",
    "to_json",
]
