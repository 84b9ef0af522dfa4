// One sample at a time: what each method answered, and which tokens it kept, on the same image.

const RIGHT = 0.5;
const GRAY_REASON = ["dropped", "#16191d"];
const viewer = { galleries: [], gallery: null, list: [], index: 0, photos: new Map(), turn: 0 };

function startSamples() {
  byId("gallery").onchange = () => loadGallery();
  for (const id of ["change", "by", "category"]) byId(id).onchange = () => listSamples();
  byId("text").oninput = () => listSamples();
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  for (const id of ["tokens", "boxes"]) byId(id).onchange = drawSample;
  byId("zoom").oninput = () => {
    byId("sample").style.setProperty("--panel", `${byId("zoom").value}px`);
  };
  byId("viewer").addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT)$/.test(event.target.tagName) || event.altKey || event.ctrlKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in steps) {
      event.preventDefault();
      step(steps[event.key]);
    }
  });
  byId("positions").addEventListener("toggle", drawPositions);
  byId("positions-run").onchange = drawPositions;
  byId("close").onclick = () => byId("large").close();
  byId("large-zoom").oninput = () => {
    byId("large-image").style.setProperty("--large", String(byId("large-zoom").value / 100));
  };
  selection.listeners.push(() => viewer.gallery && drawSample());
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      if (!viewer.gallery) loadGallery();
    }
  }, { rootMargin: "600px" }).observe(byId("viewer"));
}

async function loadGallery() {
  const number = Number(byId("gallery").value);
  viewer.galleries[number] ??= unpack(`samples-${number}`);
  viewer.gallery = await viewer.galleries[number];
  const pruned = viewer.gallery.runs.filter((run) => !data.runs[run].unpruned);
  fill(byId("by"), pruned.map((run) => [run, runLabel(run)]), 1);
  const labels = viewer.gallery.samples.flatMap((sample) => Object.entries(sample.labels));
  const categories = distinct(labels.map(([name, value]) => `${name}: ${value}`));
  fill(byId("category"), categories.filter((name) => !name.startsWith("image_id:")).sort(), 1);
  byId("category").parentNode.hidden = byId("category").length < 2;
  listSamples();
}

const runLabel = (number) => {
  const run = data.runs[number];
  return [run.method, run.unpruned ? "" : run.budget, run.layer && `layer ${run.layer}`]
    .filter(Boolean).join(" · ");
};

const isRight = (sample, run) => {
  const answer = sample.runs[run];
  return answer ? answer.score >= RIGHT : null;
};

/** "regressed", "fixed" or "" for a sample and a run. */
function change(sample, run) {
  const [now, before] = [isRight(sample, run), isRight(sample, data.runs[run].base)];
  if (now == null || before == null || now === before) return "";
  return now ? "fixed" : "regressed";
}

function listSamples() {
  const [kind, by] = [byId("change").value, byId("by").value];
  const [category, text] = [byId("category").value, byId("text").value.toLowerCase()];
  const runs = by ? [Number(by)] : viewer.gallery.runs;
  viewer.list = viewer.gallery.samples.filter((sample) => {
    const rights = distinct(viewer.gallery.runs.map((run) => isRight(sample, run)));
    return (
      (kind === "all" ||
        (kind === "disagree" && rights.includes(true) && rights.includes(false)) ||
        runs.some((run) => change(sample, run) === kind)) &&
      (!category || Object.entries(sample.labels).some((pair) => pair.join(": ") === category)) &&
      (!text || searchable(sample).includes(text))
    );
  });
  viewer.index = 0;
  drawSample();
}

const searchable = (sample) =>
  [sample.key, sample.question, sample.answer, ...Object.values(sample.runs).map((r) => r.text)]
    .join("\n").toLowerCase();

function step(by) {
  const count = viewer.list.length;
  if (!count) return;
  viewer.index = (viewer.index + by + count) % count;
  drawSample();
}

/** Go to the samples of a run: those that it regressed, where there are some. */
async function openSamples(number) {
  byId("viewer").scrollIntoView({ block: "start" });
  byId("viewer").focus({ preventScroll: true });
  const index = data.runsOf.findIndex((runs) => runs.includes(number));
  if (index < 0) {
    byId("sample").replaceChildren(make("p", { textContent: "No samples of this run are here." }));
    return;
  }
  byId("gallery").value = String(index);
  for (const id of ["text", "category"]) byId(id).value = "";
  await loadGallery();
  byId("by").value = data.runs[number].unpruned ? "" : String(number);
  byId("change").value = data.runs[number].unpruned ? "all" : "regressed";
  listSamples();
  if (!viewer.list.length) {
    byId("change").value = "all";
    listSamples();
  }
}

/** The runs beside each other: unpruned ones, the chosen one, then the others of the table. */
function runsShown(sample) {
  const by = byId("by").value;
  const runs = viewer.gallery.runs.filter((run) => sample.runs[run]);
  const rank = (run) => (data.runs[run].unpruned ? 0 : String(run) === by ? 1 : 2);
  return runs
    .filter((run) => {
      const { unpruned, method } = data.runs[run];
      return unpruned || String(run) === by || (selection.runs.has(run) && !selection.off.has(method));
    })
    .sort((a, b) => rank(a) - rank(b));
}

async function drawSample() {
  const turn = ++viewer.turn;
  const sample = viewer.list[viewer.index];
  const total = viewer.gallery.total;
  const of = `${viewer.list.length} of the ${viewer.gallery.samples.length} samples here`;
  byId("position").textContent = sample
    ? `${viewer.index + 1} of ${of} (${total} in all)` : `0 of ${of}`;
  if (!sample) {
    byId("sample").replaceChildren(make("p", { textContent: "No sample passes these filters." }));
    return;
  }
  const photos = await Promise.all(sample.images.map(loadPhoto));
  if (turn !== viewer.turn) return; // another sample was chosen meanwhile
  const cards = runsShown(sample).map((run) => card(sample, run, photos));
  byId("sample").replaceChildren(question(sample), legendOfReasons(sample),
    make("div", { className: "cards" }, ...cards));
  const kept = runsShown(sample).filter((run) => sample.runs[run].codes?.length);
  fill(byId("positions-run"), kept.map((run) => [run, runLabel(run)]));
  drawPositions();
}

function loadPhoto(number) {
  if (!viewer.photos.has(number)) {
    const photo = new Image();
    photo.src = `data:image/jpeg;base64,${byId(`image-${number}`).textContent}`;
    viewer.photos.set(number, photo.decode().then(() => photo, () => null));
  }
  return viewer.photos.get(number);
}

function question(sample) {
  const options = sample.options.map((text, i) => `${String.fromCharCode(65 + i)}. ${text}`);
  const labels = Object.entries(sample.labels).map((pair) => pair.join(": "));
  return make(
    "div", { className: "question" },
    make("h3", { textContent: [sample.question, ...options].join("  ") || sample.key }),
    make("p", {}, "Right answer: ", make("b", { textContent: sample.answer })),
    make("p", { className: "faint", textContent: [`sample ${sample.key}`, ...labels].join(" · ") }),
  );
}

function legendOfReasons(sample) {
  const used = new Set(Object.values(sample.runs).flatMap((run) => run.codes ?? []).join(""));
  const reasons = viewer.gallery.reasons.filter((_r, i) => used.has(String.fromCharCode(97 + i)));
  const signs = ["", "•", "×", "–"];
  const items = reasons.map(([name, color]) => {
    const index = viewer.gallery.reasons.findIndex((reason) => reason[0] === name);
    const cell = make("i", { className: "cell", textContent: signs[index % 4] });
    cell.style.borderColor = color;
    return make("span", {}, cell, name);
  });
  if (used.has(DROPPED)) {
    items.push(make("span", {}, make("i", { className: "cell dropped" }), "dropped"));
  }
  if (sample.box) {
    items.push(make("span", {}, make("i", { className: "line true" }), "true box"),
      make("span", {}, make("i", { className: "line predicted" }), "predicted box"));
  }
  return make("p", { className: "chips reasons" }, ...items);
}

/** What one run made of the sample. */
function card(sample, run, photos) {
  const answer = sample.runs[run];
  const what = change(sample, run);
  const right = answer.score >= RIGHT ? "✓ right" : "✗ wrong";
  const facts = [`score ${answer.score.toFixed(2)}`, `${answer.kept} of ${answer.visual} tokens kept`];
  if (answer.inBox != null) facts.push(`kept in box ${(100 * answer.inBox).toFixed(0)} %`);
  const status = what ? `${right} · ${what}` : right;
  const kind = what || (answer.score >= RIGHT ? "right" : "wrong");
  const figure = make(
    "figure", { className: `card ${kind}` },
    make("figcaption", {},
      make("strong", { textContent: runLabel(run) }), " ",
      make("span", { className: "status", textContent: status }),
      make("span", { className: "answer", textContent: answer.text || "(no answer)" }),
      make("span", { className: "faint", textContent: facts.join(" · ") })),
  );
  if (answer.problem) figure.append(make("p", { className: "faint", textContent: answer.problem }));
  if (answer.codes && !answer.codes.length) {
    figure.append(make("p", { className: "faint", textContent: "Which tokens were kept is not known." }));
  }
  if (answer.saved) {
    figure.append(...answer.saved.map((number) => savedOverlay(number, runLabel(run))));
    return figure;
  }
  (answer.layouts ?? []).forEach((layout, image) => {
    for (const grids of viewer.gallery.layouts[layout]) {
      figure.append(panel(sample, run, photos, image, grids));
    }
  });
  return figure;
}

/** What the run drew itself; it stands in where the dataset is not there. */
function savedOverlay(number, label) {
  const image = make("img", { alt: `${label}: overlay that the run saved` });
  image.src = `data:image/jpeg;base64,${byId(`image-${number}`).textContent}`;
  return image;
}

function panel(sample, run, photos, image, grids) {
  const answer = sample.runs[run];
  const photo = photos[image - Math.max(0, answer.layouts.length - photos.length)] ?? null;
  const last = image === answer.layouts.length - 1;
  const cell = 24;
  const blank = [grids[0].columns * cell, grids[0].rows * cell];
  const size = (last && sample.size) || (photo ? [photo.naturalWidth, photo.naturalHeight] : blank);
  const codes = answer.codes[image] ?? null;
  const options = {
    reasons: viewer.gallery.reasons, tokens: byId("tokens").checked, boxes: byId("boxes").checked,
    truth: last ? sample.box : null, predicted: last ? answer.box : null,
  };
  const kept = codes ? [...codes].filter((code) => code !== DROPPED).length : answer.kept;
  const what = grids[0].kind === "image" ? "image" : grids[0].kind;
  const label = `${runLabel(run)}: ${what} ${image + 1} of sample ${sample.key}, ` +
    `${kept} of ${codes ? codes.length : answer.visual} tokens kept`;
  const canvas = make("canvas", { role: "img", "aria-label": label });
  drawPanel(canvas, photo, size, grids, codes, options);
  const button = make("button", { type: "button", className: "panel", "aria-label": `Enlarge: ${label}` }, canvas);
  button.onclick = () => {
    const large = make("canvas", { role: "img", "aria-label": label });
    drawPanel(large, photo, size, grids, codes, { ...options, side: 1600 });
    byId("large-image").replaceChildren(large);
    byId("large").showModal();
    const { clientWidth, clientHeight } = byId("large-image"); // 100 % is all that fits
    const fit = Math.min(clientWidth, (clientHeight * large.width) / large.height);
    large.style.setProperty("--fit", `${fit}px`);
  };
  if (photo || grids[0].kind === "image") return button;
  return make("div", {}, button, make("p", { className: "faint", textContent: `${what}, without its image` }));
}

/** V(m) and U(m) over the tokens of the first image, those that a run kept marked. */
async function drawPositions() {
  if (!byId("positions").open) return;
  const sample = viewer.list[viewer.index];
  const answer = sample?.runs[byId("positions-run").value];
  const scores = answer && viewer.gallery.positions[answer.layouts[0]];
  if (!scores) {
    const text = "The record of these runs holds no rotary frequencies for this layout.";
    byId("positions-chart").replaceChildren(make("p", { className: "faint", textContent: text }));
    return;
  }
  const names = ["mean cosine V(m)", "mean sine U(m)"];
  const reason = (code) =>
    (code === DROPPED ? GRAY_REASON : viewer.gallery.reasons[code.charCodeAt(0) - 97])[0];
  const values = [...answer.codes[0]].flatMap((code, token) =>
    names.map((name, i) => ({ token, name, value: scores[i][token], reason: reason(code) })));
  const x = { field: "token", type: "quantitative", title: "visual token of the first image", scale: { nice: false } };
  const y = { field: "value", type: "quantitative", title: "mean over the frequencies", scale: { zero: false } };
  const used = viewer.gallery.reasons.filter(([name]) => values.some((v) => v.reason === name));
  await drawChart(byId("positions-chart"), {
    width: Math.max(220, byId("sample").clientWidth - 24), height: 300, config: CONFIG,
    autosize: { type: "fit", contains: "padding" },
    description: `V(m) and U(m) at ${scores[0].length} visual tokens, with the kept ones marked by reason.`,
    layer: [
      {
        data: { values }, mark: { type: "line", strokeWidth: 1.2 },
        encoding: { x, y, strokeDash: { field: "name", type: "nominal", title: null, legend: { orient: "top" } },
          color: { value: GRAY } },
      },
      {
        data: { values: values.filter((v) => v.reason !== "dropped") },
        mark: { type: "point", filled: true, size: 36, opacity: 1 },
        encoding: {
          x, y, tooltip: ["token", "name", "value", "reason"].map((field) => ({ field })),
          color: { field: "reason", type: "nominal", title: "kept as",
            scale: { domain: used.map((r) => r[0]), range: used.map((r) => r[1]) }, legend: { orient: "top" } },
          shape: { field: "reason", type: "nominal", title: "kept as", legend: { orient: "top" },
            scale: { domain: used.map((r) => r[0]) } },
        },
      },
    ],
  });
}
