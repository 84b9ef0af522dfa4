// The table of runs: sorted by DataTables, filtered by the selects above it.

const FILTERS = ["dataset", "model", "method", "budget"];
const PAGE = 100;
let table;

function startTable() {
  const rows = [...document.querySelectorAll("#runs tbody tr")];
  const marks = rows.map((row) => [...row.querySelectorAll(".mark")].map((m) => m.textContent));
  const numbers = rows.map((row) => Number(row.dataset.run));
  for (const row of rows) {
    const name = row.cells[0].textContent;
    row.cells[0].prepend(
      make("button", {
        type: "button", className: "more", "aria-expanded": "false",
        "aria-label": `Details of run ${name}`, textContent: "▸",
      }),
    );
  }
  table = new window.DataTable("#runs", {
    autoWidth: false, order: [], orderMulti: false, paging: rows.length > PAGE, pageLength: PAGE,
    lengthMenu: [PAGE, 500, { label: "all", value: -1 }],
    columnDefs: [{ targets: data.hidden, visible: false }],
    layout: { topStart: null, topEnd: null, bottomStart: "pageLength", bottomEnd: "paging" },
  });
  byId("filters").hidden = false;
  for (const name of FILTERS) {
    fillFilter(name, distinct(data.runs.map((run) => run[name])));
  }
  fillFilter("mark", distinct(marks.flat()).sort());
  table.search.fixed("filters", (_text, _row, index) => {
    const run = data.runs[numbers[index]];
    const mark = byId("filter-mark").value;
    return (
      FILTERS.every((name) => ["", run[name]].includes(byId(`filter-${name}`).value)) &&
      (!mark || marks[index].includes(mark))
    );
  });
  for (const name of [...FILTERS, "mark"]) byId(`filter-${name}`).onchange = () => table.draw();
  byId("search").oninput = () => table.search(byId("search").value).draw();
  byId("reset").onclick = resetFilters;
  table.on("draw", () => {
    const runs = table.rows({ search: "applied" }).indexes().toArray().map((i) => numbers[i]);
    byId("count").textContent = `${runs.length} of ${data.runs.length} runs`;
    if (runs.length !== selection.runs.size || runs.some((run) => !selection.runs.has(run))) {
      selection.runs = new Set(runs);
      changed();
    }
  });
  byId("count").textContent = `${data.runs.length} of ${data.runs.length} runs`;
  byId("runs").addEventListener("click", (event) => {
    const button = event.target.closest("button.more");
    if (button) toggleRow(button.closest("tr"));
  });
  startColumns();
}

/** The choices of a filter; one without a choice is left out. */
function fillFilter(name, values) {
  const select = byId(`filter-${name}`);
  fill(select, values, 1);
  select.parentNode.hidden = values.length < 2 && name !== "mark";
}

function resetFilters() {
  for (const name of [...FILTERS, "mark"]) byId(`filter-${name}`).value = "";
  byId("search").value = "";
  table.search("").draw();
}

/** A box for each column but the first. */
function startColumns() {
  const boxes = byId("columns").querySelector("div");
  table.columns().every(function (index) {
    if (!index) return;
    const box = make("input", { type: "checkbox", checked: this.visible() });
    box.onchange = () => this.visible(box.checked);
    boxes.append(make("label", {}, box, ` ${this.title()}`));
  });
}

/** Open or close what a row leads to. */
function toggleRow(node, open = !table.row(node).child.isShown()) {
  const row = table.row(node);
  const button = node.querySelector("button.more");
  button.setAttribute("aria-expanded", String(open));
  button.textContent = open ? "▾" : "▸";
  if (open) row.child(rowDetails(Number(node.dataset.run))).show();
  else row.child.hide();
}

function rowDetails(number) {
  const run = data.runs[number];
  const copy = make("button", { type: "button", textContent: "Copy" });
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(run.command);
      copy.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(copy.previousElementSibling);
      copy.textContent = "Selected: copy it";
    }
  };
  const links = make("p", { className: "controls" });
  if (byId("viewer")) {
    const samples = make("button", { type: "button", textContent: "Samples of this run" });
    samples.onclick = () => openSamples(number);
    links.append(samples);
  }
  const settings = make("button", { type: "button", textContent: "Settings of this run" });
  settings.onclick = () => openSettings(number);
  links.append(settings);
  return make(
    "div", { className: "details" },
    make("p", {}, make("code", { textContent: run.command }), " ", copy),
    make("p", { className: "faint", textContent: run.folder }),
    links,
  );
}

/** Go to the row of a run, opened. */
function openRow(number) {
  if (!selection.runs.has(number)) resetFilters();
  const index = table.row(`[data-run="${number}"]`).index();
  const order = table.rows({ search: "applied" }).indexes().toArray();
  if (table.page.len() > 0) table.page(Math.floor(order.indexOf(index) / table.page.len()));
  table.draw("page");
  const node = table.row(index).node();
  toggleRow(node, true);
  node.scrollIntoView({ block: "center" });
  node.querySelector("button.more").focus({ preventScroll: true });
}
