"""Write the JavaScript libraries of the page anew: `python ivcp/report/assets/make.py`.

They are taken out of two Python packages, which are needed for this alone (`pip install
itables==2.9.1 vl-convert-python==1.9.0`), so that no run and no report depends on these.
"""

from __future__ import annotations

import gzip
import re
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
EXPORTS = re.compile(r"export\{[^}]*?(\w+) as jQuery[^}]*\};?")
CLOSING = re.compile("</(?=script)", re.IGNORECASE)
SAFE = r"<\\/"
"""What would end the element that the library stands in."""


def libraries() -> dict[str, str]:
    """Each library by its file's name; they set `vegaEmbed` and `DataTable` of the window."""
    vega = import_module("vl_convert").javascript_bundle()
    tables = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    tables, count = EXPORTS.subn(r"window.DataTable=\1.fn.dataTable;", tables)
    if count != 1:
        raise RuntimeError("itables exports its libraries in another way; adapt EXPORTS.")
    sources = {
        "vega.js": (
            vega,
            f"Vega, Vega-Lite, Vega-Embed: vl-convert {version('vl-convert-python')}",
        ),
        "datatables.js": (tables, f"DataTables, jQuery: itables {version('itables')}"),
    }
    return {
        name: f"/* {title}; licences: LICENSES.txt */\n(()=>{{{CLOSING.sub(SAFE, code)}\n}})();\n"
        for name, (code, title) in sources.items()
    }


if __name__ == "__main__":
    for name, text in libraries().items():
        data = gzip.compress(text.encode(), mtime=0)  # so that searches in the source skip it
        (HERE / f"{name}.gz").write_bytes(data)
        print(f"{name}: {len(text) / 1000:.0f} kB, {len(data) / 1000:.0f} kB compressed")
