// What the page holds, and the one way in which it makes elements: texts never become markup.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

/** An element. Properties of the DOM are set by name; "aria-" and "data-" ones are attributes. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(aria|data)-|^(role|scope|for)$/.test(name)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** The compressed JSON of an element. */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Fill a select with [value, label] pairs, or texts; the first options that it has stay. */
function fill(select, options, stay = 0) {
  const chosen = select.value;
  select.length = stay;
  for (const option of options) {
    const [value, label] = Array.isArray(option) ? option : [option, option];
    select.append(new Option(label, value));
  }
  if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
}

const distinct = (values) => [...new Set(values)];

/** What the filters let through: numbers of runs, and what to call when they change. */
const selection = { runs: new Set(data.runs.keys()), off: new Set(), listeners: [] };
const changed = () => selection.listeners.forEach((listener) => listener());
