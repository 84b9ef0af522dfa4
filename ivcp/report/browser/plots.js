// Scores against costs, drawn by Vega-Lite: one plot for each dataset, model and metric.

const COLORS = ["#0072b2", "#c85200", "#00875f", "#b3589a", "#9a6b00", "#6f5bb5", "#a0522d"];
const GRAY = "#7a7a7a";
const SHAPES = {
  circle: "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
  square: "M-.9,-.9H.9V.9H-.9Z",
  diamond: "M0,-1.25L1.05,0L0,1.25L-1.05,0Z",
  up: "M0,-1.1L1.15,.85H-1.15Z",
  down: "M0,1.1L1.15,-.85H-1.15Z",
  plus: "M-.35,-1.1H.35V-.35H1.1V.35H.35V1.1H-.35V.35H-1.1V-.35H-.35Z",
  hexagon: "M1.1,0L.55,.95H-.55L-1.1,0L-.55,-.95H.55Z",
  cross: "M-1.1,-.7L-.7,-1.1L0,-.4L.7,-1.1L1.1,-.7L.4,0L1.1,.7L.7,1.1L0,.4L-.7,1.1L-1.1,.7L-.4,0Z",
};
const STAR = "M0,-1.5L.35,-.48L1.43,-.46L.57,.19L.88,1.21L0,.6L-.88,1.21L-.57,.19L-1.43,-.46L-.35,-.48Z";
const MOST_CHARTS = 6;
const HEIGHT = 330;
const looks = new Map(); // by method
let drawings = 0;

function startPlots() {
  const pruned = data.runs.filter((run) => !run.unpruned);
  const methods = distinct(pruned.filter((run) => !run.control).map((run) => run.method)).sort();
  const shapes = Object.values(SHAPES);
  methods.forEach((method, number) => {
    const round = Math.floor(number / COLORS.length); // so that color and shape never both repeat
    const shape = shapes[(number + round) % shapes.length];
    looks.set(method, { color: COLORS[number % COLORS.length], shape });
  });
  const controls = distinct(pruned.filter((run) => run.control).map((run) => run.method)).sort();
  controls.forEach((method, number) => {
    looks.set(method, { color: GRAY, shape: number % 2 ? SHAPES.plus : SHAPES.cross });
  });
  const legend = byId("methods");
  for (const method of methods) {
    const button = make("button", { type: "button", "aria-pressed": "true" }, symbol(method), method);
    button.onclick = () => {
      const off = !selection.off.delete(method);
      if (off) selection.off.add(method);
      button.setAttribute("aria-pressed", String(!off));
      changed();
    };
    legend.append(button);
  }
  for (const method of controls) legend.append(make("span", {}, symbol(method), method));
  if (data.runs.some((run) => run.unpruned)) {
    legend.append(make("span", {}, make("i", { className: "dashes" }), "unpruned"));
  }
  for (const option of [...byId("axis").options]) {
    const values = distinct(data.runs.map((run) => run.x[option.value]).filter((x) => x != null));
    const least = ["ratio", "layer"].includes(option.value) ? 2 : 1;
    if (values.length < least) option.remove();
  }
  byId("axis").onchange = drawPlots;
  selection.listeners.push(drawPlots);
  let width = byId("charts").clientWidth;
  window.addEventListener("resize", () => {
    if (byId("charts").clientWidth !== width) drawPlots();
    width = byId("charts").clientWidth;
  });
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      drawPlots();
    }
  }, { rootMargin: "400px" }).observe(byId("charts"));
}

/** The sign of a method in the legend. */
function symbol(method) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "-1.4 -1.4 2.8 2.8");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", looks.get(method).shape);
  path.setAttribute("fill", looks.get(method).color);
  svg.append(path);
  return svg;
}

/** The runs of each plot: those of the table, and the controls and unpruned runs beside them. */
function blocksShown() {
  const inTable = [...selection.runs].map((number) => data.runs[number]);
  return distinct(inTable.map((run) => run.block)).map((block) => [
    block,
    [...data.runs.entries()].filter(
      ([number, run]) =>
        run.block === block && run.value != null &&
        (run.unpruned || run.control || (selection.runs.has(number) && !selection.off.has(run.method))),
    ),
  ]);
}

async function drawPlots() {
  const drawing = ++drawings;
  const blocks = blocksShown();
  const boxes = blocks.slice(0, MOST_CHARTS).map(([block]) => {
    const chart = make("div", { className: "chart" });
    return make("figure", {}, make("figcaption", { textContent: block }), chart);
  });
  if (!blocks.length) boxes.push(make("p", { textContent: "No run passes the filters." }));
  if (blocks.length > MOST_CHARTS) {
    const more = `${blocks.length - MOST_CHARTS} more plots: choose a dataset or a model above.`;
    boxes.push(make("p", { textContent: more }));
  }
  byId("charts").replaceChildren(...boxes);
  for (const [index, [block, runs]] of blocks.slice(0, MOST_CHARTS).entries()) {
    if (drawing !== drawings) return;
    const chart = boxes[index].lastChild;
    const spec = plotSpec(block, runs, byId("axis").value, chart.clientWidth);
    if (spec.layer.length) await drawChart(chart, spec);
    else chart.textContent = "No run has this number.";
  }
}

/** Draw a specification of Vega-Lite without evaluating code or adding styles. */
async function drawChart(node, spec, onRun = openRow) {
  const { view } = await window.vegaEmbed(node, spec, {
    actions: false, ast: true, renderer: "svg", defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
  view.addEventListener("click", (_event, item) => {
    if (item?.datum?.run != null) onRun(item.datum.run);
  });
  node.querySelector("svg")?.setAttribute("focusable", "false");
}

/** Sizes and fonts that all charts share; colors of axes and texts come from the stylesheet. */
const CONFIG = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null }, mark: { aria: false },
  axis: { labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.6 },
};

function plotSpec(block, runs, axis, width) {
  const points = [];
  const levels = [];
  for (const [number, run] of runs) {
    if (run.unpruned) {
      levels.push({ y: run.value, label: `unpruned ${run.score}` });
    }
    if (run.x[axis] == null) continue;
    const [low, high] = run.interval?.length === 2 ? run.interval : [null, null];
    points.push({
      run: number, x: run.x[axis], y: run.value, low, high,
      method: run.unpruned ? "unpruned" : run.method,
      line: `${run.method} ${run.layer}`, // a line joins the budgets of a method
      order: run.x.ratio ?? run.x[axis], control: run.control, unpruned: run.unpruned,
      tip: tip(run),
    });
  }
  const methods = [...looks.keys(), "unpruned"];
  const colors = [...[...looks.values()].map((look) => look.color), GRAY];
  const shapes = [...[...looks.values()].map((look) => look.shape), STAR];
  const x = {
    field: "x", type: "quantitative", title: data.axes[axis], axis: { tickCount: 8 }, scale: { zero: false, nice: false, padding: 18 },
  };
  const y = {
    field: "y", type: "quantitative", title: null, scale: { zero: false, padding: 12 },
  };
  const color = { field: "method", type: "nominal", scale: { domain: methods, range: colors }, legend: null };
  const tooltip = Object.keys(points[0]?.tip ?? {}).map((name) => ({
    field: `tip.${name}`, title: name, type: "nominal",
  }));
  const pruned = points.filter((point) => !point.unpruned);
  const named = block.length > 60 ? `${block.slice(0, 60)}…` : block;
  const bars = pruned.filter((point) => point.low != null);
  return {
    width: Math.max(200, width), height: HEIGHT, autosize: { type: "fit", contains: "padding" }, config: CONFIG,
    description: `Score against ${data.axes[axis]} for ${named}: ${points.length} runs. The table has the same numbers.`,
    layer: [
      {
        data: { values: levels },
        layer: [
          { mark: { type: "rule", strokeDash: [6, 3], color: GRAY }, encoding: { y } },
          {
            mark: { type: "text", align: "left", dx: 3, dy: -6, fontSize: 11 },
            encoding: { y, x: { value: 0 }, text: { field: "label", type: "nominal" } },
          },
        ],
      },
      {
        data: { values: pruned }, mark: { type: "line", strokeWidth: 1.5, opacity: 0.55 },
        encoding: { x, y, color, detail: { field: "line" }, order: { field: "order", type: "quantitative" } },
      },
      {
        data: { values: bars },
        mark: { type: "rule", opacity: 0.5 },
        encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color },
      },
      {
        data: { values: points },
        mark: { type: "point", filled: true, size: 90, opacity: 1, cursor: "pointer" },
        encoding: {
          x, y, color, tooltip,
          shape: { field: "method", type: "nominal", scale: { domain: methods, range: shapes }, legend: null },
        },
      },
    ].filter((layer) => layer.data.values.length),
  };
}

/** What a point shows on hover. */
function tip(run) {
  const percent = (value) => (value == null ? "-" : `${value.toFixed(1)} %`);
  return {
    run: run.name, score: run.score, "difference to unpruned": run.difference ?? "-",
    "tokens kept": percent(run.x.tokens), "KV cache": percent(run.x.kv),
    "prefill FLOPs": percent(run.x.flops),
    "prefill time": run.x.time == null ? "not compared" : `${run.x.time.toFixed(1)} ms`,
  };
}
