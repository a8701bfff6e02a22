"""Settings fields that know their description and bounds: one source for checks, JSON and JSON Schema.

See `field` for what a settings class is.

This package uses no torch and imports nothing else of ours. The front uses it when a job is created, and the trainer
when it starts.

- `field`: what a setting is. `description`: settings as JSON Schema. `values`: settings as JSON.
- `reading`: settings from JSON, with all violations. `violations`: what a violation is.
- `schema_violations`: check a configuration against JSON Schema. `configuration_size`: how large one may be.
- `shorthand`: a configuration in full. `cross_field_rules`: rules between fields.
- `patch_size`: the patch size that fits an image size.
"""

from manyview_server.configuration.description import json_schema
from manyview_server.configuration.field import Pattern, changed, setting, settings_by_name
from manyview_server.configuration.reading import check, merge, read, resolve
from manyview_server.configuration.values import to_json
from manyview_server.configuration.violations import SettingsError, Violation

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
