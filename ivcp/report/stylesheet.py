"""How the page looks: one column, from a phone to a desk, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c1f23; --faint: #5d6670; --line: #d9dee3; --band: #f3f5f7;
  --accent: #0061a4; --regressed: #b3261e; --fixed: #1a6e37;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e6e9ec; --faint: #9aa4ae; --line: #343b42; --band: #1d2226;
    --accent: #7cbcf2; --regressed: #ff9d94; --fixed: #7fd79a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.2rem clamp(0.8rem, 3vw, 2.5rem) 4rem; max-width: 1500px;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2.4rem 0 0.6rem; padding-bottom: 0.2rem; border-bottom: 2px solid var(--line); }
h3 { margin: 1.6rem 0 0.4rem; font-size: 1.05rem; overflow-wrap: anywhere; }
p { margin: 0.4rem 0; max-width: 75ch; overflow-wrap: anywhere; }
a { color: var(--accent); }
.faint, figcaption { color: var(--faint); }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin: 0.6rem 0 0; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; min-width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }
th { white-space: pre; background: var(--band); vertical-align: bottom; }
th { font-weight: 600; font-size: 0.85rem; }
.words { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
th:first-child { background: var(--band); }
.unpruned td { font-weight: 650; }
.first td { border-top: 1px solid var(--line); }
tbody tr:hover td { background: var(--band); }
figure { margin: 0.8rem 0; overflow-x: auto; }
figcaption { font-size: 0.85rem; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; background: #ffffff; }
.plot img { width: 100%; max-width: 1100px; padding: 0.3rem; }
article {
  margin: 0.8rem 0; padding: 0.6rem 0.9rem 0.8rem;
  border: 1px solid var(--line); border-left: 5px solid var(--line); border-radius: 6px;
}
article.regressed { border-left-color: var(--regressed); }
article.fixed { border-left-color: var(--fixed); }
article h4 { margin: 0; font-size: 0.95rem; overflow-wrap: anywhere; }
.regressed h4 b { color: var(--regressed); }
.fixed h4 b { color: var(--fixed); }
.shots { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); }
.shots figure { margin: 0.5rem 0 0; max-width: 720px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; margin: 0.5rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: 0.35rem 0; }
details details { margin-left: 1rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  body { font-size: 14px; }
  th, td { padding: 0.2rem 0.45rem; }
  .plot img { width: 640px; max-width: none; }
  .settings dl { grid-template-columns: 1fr; }
  .settings dd { margin: 0 0 0.3rem 0.8rem; }
}
@media print { details > * { display: block; } .wide, figure { overflow: visible; } }
"""
