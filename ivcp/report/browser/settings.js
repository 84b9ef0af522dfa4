// The settings in which two runs differ, side by side.

let settings;

function startSettings() {
  const names = data.runs.map((run, number) => [number, run.name]);
  for (const id of ["left", "right"]) {
    fill(byId(id), names);
    byId(id).onchange = compareSettings;
  }
  if (data.runs.length > 1) byId("right").value = "1";
  new IntersectionObserver((entries, observer) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      observer.disconnect();
      compareSettings();
    }
  }, { rootMargin: "300px" }).observe(byId("comparison"));
}

/** Put a run beside its unpruned run, or beside the first one. */
function openSettings(number) {
  byId("left").value = String(data.runs[number].base ?? 0);
  byId("right").value = String(number);
  compareSettings();
  byId("left").focus({ preventScroll: true });
  byId("comparison").scrollIntoView({ block: "center" });
}

async function compareSettings() {
  settings ??= unpack("settings-data");
  const { runs } = await settings;
  const numbers = [byId("left"), byId("right")].map((select) => Number(select.value));
  const [left, right] = numbers.map((number) => ({ ...outcome(number), ...runs[number] }));
  const names = distinct([...Object.keys(left), ...Object.keys(right)]);
  const different = names.filter((name) => left[name] !== right[name]);
  const head = ["setting", ...numbers.map((number) => data.runs[number].name)];
  const rows = different.map((name) =>
    make("tr", {}, make("th", { scope: "row", className: "words", textContent: name }),
      ...[left, right].map((values) =>
        make("td", { className: "words", textContent: values[name] ?? "-" }))));
  byId("comparison").replaceChildren(
    different.length
      ? make("table", {},
        make("thead", {}, make("tr", {}, ...head.map((text) =>
          make("th", { scope: "col", className: "words", textContent: text })))),
        make("tbody", {}, ...rows))
      : make("p", { textContent: "These runs have the same settings." }),
  );
}

/** What came out of a run, above its settings. */
function outcome(number) {
  const run = data.runs[number];
  const percent = (value) => (value == null ? "-" : `${value.toFixed(1)} %`);
  return {
    "→ score": run.score, "→ difference to unpruned": run.difference ?? "-",
    "→ tokens kept": percent(run.x.tokens), "→ prefill FLOPs": percent(run.x.flops),
  };
}
