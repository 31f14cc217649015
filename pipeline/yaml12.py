"""YAML with the numbers of YAML 1.2: `1e-06` and `1e6` are floats, where PyYAML, which is 1.1, reads text.

Whatever Sluice reads as YAML comes through here: run files, recipes, `--set`. Helm and most other programs write small
floats so. They also leave `=` and `<<` without quotes where they are text: 1.1 has no such data, and refuses them.

>>> read("{eps: 1e-06, cap: 1e6, lr: 1.0e-3, name: 1e-06x, stop: [=, <<]}")
{'eps': 1e-06, 'cap': 1000000.0, 'lr': 0.001, 'name': '1e-06x', 'stop': ['=', '<<']}
"""

from __future__ import annotations

import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"
EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]{1,3}$")


class Loader(yaml.SafeLoader):
    """Plain data and nothing else, as `SafeLoader`."""


Loader.add_implicit_resolver(f"{TAG}float", EXPONENT, list("-+.0123456789"))
for _name in ("value", "merge"):
    Loader.add_constructor(TAG + _name, yaml.SafeLoader.construct_yaml_str)


def read(text: str) -> Any:
    """What the text holds; None of an empty one. Raises `yaml.YAMLError`."""
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
