"""The configuration of a job: one description and one check of each setting.

A settings class, where torch is, declares each setting with its bounds and a sentence. Its JSON Schema is the
description that everybody goes by: the front when a job is created, the trainer when it starts, settings that are made
by hand in a notebook, and users who ask what a method takes. So the same violation has the same text everywhere.

This package uses no torch and imports nothing else of ours.

- `setting`: declare a setting. `settings_class`: what the classes mean. `reading`: settings from JSON values.
- `json_schema`: the description of a settings class. `schema`: the keywords of a description.
- `resolution`: complete and check a configuration. `field_check`: the check of single fields.
- `sibling_rules`, `cross_field_rules`: rules between fields.
- `shorthand`: short forms. `configuration_size`: how large a configuration may be.
- `violations`: what is wrong, in sentences.
- `networks/`: what follows from a network.
"""

from manyview_server.configuration.json_schema import json_schema
from manyview_server.configuration.reading import check, read, resolve
from manyview_server.configuration.setting import DefaultPreset, Pattern, changed, setting, settings_by_name
from manyview_server.configuration.settings_class import to_json
from manyview_server.configuration.violations import InvalidConfiguration, Violation

__all__ = [
    "DefaultPreset",
    "InvalidConfiguration",
    "Pattern",
    "Violation",
    "changed",
    "check",
    "json_schema",
    "read",
    "resolve",
    "setting",
    "settings_by_name",
    "to_json",
]
