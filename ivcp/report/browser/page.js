// Start everything; the theme; printing.

const THEMES = ["system", "light", "dark"];

function startTheme() {
  const button = byId("theme");
  button.onclick = () => {
    const now = document.documentElement.dataset.theme ?? "system";
    const theme = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
}

/** Paper has all rows and columns, and nothing is folded. */
function startPrinting() {
  let restore = [];
  window.addEventListener("beforeprint", () => {
    const length = table.page.len();
    const hidden = table.columns().indexes().toArray().filter((i) => !table.column(i).visible());
    const closed = [...document.querySelectorAll("main details:not([open], .menu)")];
    table.columns(hidden).visible(true);
    table.page.len(-1).draw(false);
    for (const details of closed) details.open = true;
    restore = [
      () => table.columns(hidden).visible(false), () => table.page.len(length).draw(false),
      () => closed.forEach((details) => { details.open = false; }),
    ];
  });
  window.addEventListener("afterprint", () => restore.splice(0).forEach((undo) => undo()));
}

startTheme();
startTable();
startPlots();
if (byId("viewer")) startSamples();
startSettings();
startPrinting();
document.documentElement.dataset.ready = "yes";
