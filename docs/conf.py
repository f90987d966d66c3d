"""Sphinx configuration; `make docs` builds with warnings as errors and every reference checked."""

from __future__ import annotations

import importlib.metadata
import logging

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

project = "Motoko"
author = "The Motoko developers"
copyright = author
release = importlib.metadata.version("motoko")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "examples"]

html_theme = "furo"
html_title = f"Motoko {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
nitpicky = True
# The build must work without a network, so references that lead out of the project are not looked up.
nitpick_ignore_regex = [
    (r"py:.*", r"(abc|argparse|asyncio|collections|contextlib|datetime|os|pathlib|types|typing)(\..*)?"),
    (r"py:.*", r"(BlackDynamite|ZODB|attr|attrs|pandas|persistent|pluggy|transaction)(\..*)?"),
    (r"py:.*", r"(Any|Callable|Mapping|Sequence|Iterable|Iterator|Awaitable|AsyncIterator|ClassVar|Path)"),
    (r"py:.*", r"(int|str|bool|float|object|optional|TypeVar|Ellipsis|T)"),
    # Names that stand in public signatures without being part of the interface.
    (r"py:.*", r"motoko_core\.(config|engine|plugins|session|study)\..*"),
    (r"py:mod", r"motoko_core\..*"),
    (r"py:.*", r"(Constraint|Constraints|Task)"),
]

# BlackDynamite, which autodoc imports, logs each function that it decorates, at a level that it sets itself.
logging.getLogger("BlackDynamite").propagate = False


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: Element) -> Element | None:
    """Find what an annotation means: by its last name, for objects are documented where users import them."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    short = "." + node["reftarget"].rpartition(".")[2]
    matches = [name for name in domain.objects if name.startswith("motoko") and name.endswith(short)]
    if len(matches) != 1:
        return None
    target = domain.objects[matches[0]]
    return make_refnode(app.builder, node["refdoc"], target.docname, target.node_id, contnode, matches[0])


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
