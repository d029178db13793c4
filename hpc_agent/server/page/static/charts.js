// Charts: scalars of one or more tasks, and figures as tasks reported them. Each is drawn when it comes into view.
(() => {
  "use strict";
  const style = () => {
    const computed = getComputedStyle(document.body);
    const probe = document.createElement("i");
    document.body.append(probe);
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const found = { text: colour("--text"), dim: colour("--dim"), line: colour("--line"), surface: colour("--surface"), sunken: colour("--sunken"), font: computed.fontFamily };
    probe.remove();
    return found;
  };
  const dark = () => {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const palette = () => (dark()
    ? ["#86abff", "#f2a65e", "#6fd39b", "#f08ba0", "#b79cf5", "#5fcbd8", "#e0c25a", "#a8b3c4", "#d78bd8", "#8fd14f"]
    : ["#2857c5", "#c8610c", "#1c7c45", "#c22f4e", "#7146c4", "#0b7687", "#8a6a00", "#5a6577", "#9a35a0", "#4c7a12"]);
  const base = () => {
    const { text, dim, line, font } = style();
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { color: dim, size: 11 }, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: palette(), font: { family: font, size: 12, color: text },
      margin: { l: 48, r: 12, t: 10, b: 30 }, xaxis: axis, yaxis: axis, hovermode: "x unified", hoverlabel: { namelength: 40 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } }, uirevision: "keep",
    };
  };
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  const load = async (address) => {
    const answer = await fetch(address, { headers: { "HX-Request": "true", "HX-Current-URL": location.href } });
    const login = answer.headers.get("HX-Redirect");
    if (login) { location.assign(login); throw new Error("log in again"); }
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.json();
  };

  // Drawing when in view
  const drawers = new WeakMap();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.dataset.inView = entry.isIntersecting ? "yes" : "";
      if (entry.isIntersecting) drawers.get(entry.target)?.();
    }
  }, { rootMargin: "300px" });
  const register = (card, draw) => {
    drawers.set(card, draw);
    if (card.dataset.inView === "yes") draw(); else watcher.observe(card);
  };

  // Scalars
  const scalars = document.getElementById("scalars");
  const cards = new Map();
  let data = null;
  let axis = "iter";
  const smoothing = () => Number(document.getElementById("smoothing")?.value || 0);
  const smoothed = (values, weight) => {
    let last = null, debias = 0;
    return values.map((value) => {
      if (value === null || !Number.isFinite(value)) return value;
      last = (last ?? 0) * weight + (1 - weight) * value;
      debias = debias * weight + (1 - weight);
      return last / debias;
    });
  };
  const abscissa = (points) => {
    if (axis !== "relative") return points.x;
    const first = points.x[0];
    return points.x.map((moment) => (moment - first) / 60000);
  };
  const traces = (variants) => {
    const colours = palette();
    const found = [];
    let index = 0;
    const names = new Map(data.tasks.map((task) => [task.id, task.name]));
    for (const [variant, curves] of Object.entries(variants)) {
      for (const [task, points] of Object.entries(curves)) {
        const name = data.tasks.length > 1 ? `${variant} · ${names.get(task)}` : variant;
        const colour = colours[index++ % colours.length];
        const weight = smoothing();
        const single = points.x.length === 1;
        const line = { x: abscissa(points), name: name.length > 60 ? `${name.slice(0, 60)} …` : name, mode: single ? "markers" : "lines", type: "scatter" };
        if (weight > 0 && !single) found.push({ ...line, y: points.y, line: { color: colour, width: 1 }, opacity: 0.3, hoverinfo: "skip", showlegend: false });
        found.push({ ...line, y: weight > 0 ? smoothed(points.y, weight) : points.y, line: { color: colour, width: 1.8 }, marker: { color: colour, size: 8 } });
      }
    }
    return found;
  };
  const drawScalar = (metric) => {
    const card = cards.get(metric);
    const layout = base();
    const many = Object.keys(data.curves[metric]).length * data.tasks.length;
    layout.showlegend = many > 1;
    if (many > 12) layout.hovermode = "closest";
    layout.xaxis = { ...layout.xaxis, title: { text: { iter: "", relative: "minutes", iso_time: "" }[axis], font: { size: 11 } } };
    if (document.getElementById("log-scale")?.checked) layout.yaxis = { ...layout.yaxis, type: "log" };
    Plotly.react(card.querySelector(".plot"), traces(data.curves[metric]), layout, config);
  };
  const showScalars = () => {
    const only = scalars.dataset.only ? new RegExp(scalars.dataset.only) : null;
    const metrics = Object.keys(data.curves).filter((name) => !only || only.test(name)).sort((a, b) => a.startsWith(":") - b.startsWith(":") || a.localeCompare(b, undefined, { numeric: true }));
    const wanted = (document.getElementById("chart-filter")?.value || "").trim().toLowerCase();
    if (!cards.size) scalars.replaceChildren();
    if (!metrics.length) {
      const empty = document.createElement("p");
      empty.className = "dim";
      empty.textContent = only ? "No usage curves were reported: the SDK reports them while a task runs." : "No scalars were reported yet.";
      scalars.replaceChildren(empty);
    }
    let count = 0;
    for (const metric of metrics) {
      if (!cards.has(metric)) {
        const card = document.createElement("section");
        card.className = "chart";
        const title = document.createElement("h2");
        title.textContent = metric;
        const plot = document.createElement("div");
        plot.className = "plot";
        plot.setAttribute("role", "figure");
        plot.setAttribute("aria-label", `Curves of ${metric}`);
        card.append(title, plot);
        cards.set(metric, card);
        scalars.append(card);
      }
      const card = cards.get(metric);
      const fits = !wanted || metric.toLowerCase().includes(wanted) || Object.keys(data.curves[metric]).some((name) => name.toLowerCase().includes(wanted));
      card.hidden = !fits;
      count += fits ? 1 : 0;
      register(card, () => drawScalar(metric));
    }
    const counter = document.getElementById("chart-count");
    if (counter) counter.textContent = metrics.length > 1 ? `${count} of ${metrics.length} charts` : "";
  };
  const loadScalars = async () => {
    const key = axis === "relative" ? "timestamp" : axis;
    try {
      data = await load(`${scalars.dataset.url}&axis=${key}`);
      showScalars();
    } catch (error) {
      if (!cards.size) scalars.replaceChildren(Object.assign(document.createElement("p"), { className: "error-text", textContent: error.message }));
    }
  };
  if (scalars) {
    loadScalars();
    setInterval(() => { if (data?.live && !document.hidden) loadScalars(); }, 4000);
    document.getElementById("smoothing")?.addEventListener("input", showScalars);
    document.getElementById("log-scale")?.addEventListener("change", showScalars);
    for (const pressed of document.querySelectorAll("[data-axis]")) {
      pressed.addEventListener("click", () => {
        axis = pressed.dataset.axis;
        for (const other of document.querySelectorAll("[data-axis]")) other.setAttribute("aria-pressed", String(other === pressed));
        loadScalars();
      });
    }
  }

  // Figures
  const withTheme = (figure) => {
    const layout = structuredClone(figure.layout || {});
    const ours = base();
    delete layout.template;
    for (const name of Object.keys(layout)) if (/^[xyz]axis\d*$/.test(name)) layout[name] = { ...ours.xaxis, ...layout[name] };
    const title = layout.title;
    delete layout.width;
    delete layout.height;
    return { ...ours, hovermode: "closest", legend: { font: { size: 11 } }, ...layout, margin: { ...ours.margin, ...(title ? { t: 44 } : {}) }, autosize: true,
      paper_bgcolor: ours.paper_bgcolor, plot_bgcolor: ours.plot_bgcolor, font: ours.font };
  };
  // plotly.js draws tables without colours of their own black on white.
  const withTableColours = (trace) => {
    if (trace?.type !== "table") return trace;
    const { text, line, surface, sunken } = style();
    const part = (given, fill) => (given?.fill ? given : { ...given, fill: { color: fill }, font: { ...given?.font, color: text }, line: { ...given?.line, color: line } });
    return { ...trace, header: part(trace.header, sunken), cells: part(trace.cells, surface) };
  };
  const drawFigures = (card, answer) => {
    const host = card.querySelector(".plot");
    for (const extra of card.querySelectorAll(".plot.more, .note")) extra.remove();
    if (!answer.figures.length) {
      if ("optional" in card.dataset) card.hidden = true; else host.textContent = "There is no such plot any more.";
      return;
    }
    answer.figures.forEach((item, index) => {
      let plot = host;
      if (answer.figures.length > 1) {
        const note = document.createElement("div");
        note.className = "note";
        note.textContent = item.name;
        if (index === 0) card.insertBefore(note, host); else card.append(note);
      }
      if (index > 0) { plot = document.createElement("div"); plot.className = "plot more"; card.append(plot); }
      if (item.image && item.image.startsWith("/files/")) {
        plot.replaceChildren(Object.assign(document.createElement("img"), { src: item.image, alt: card.dataset.name }));
      } else if (item.figure) {
        Plotly.react(plot, item.figure.data?.map?.(withTableColours), withTheme(item.figure), config).catch((error) => { plot.textContent = `This plot cannot be drawn: ${error.message}`; });
      } else plot.textContent = "This plot is not in a form that can be drawn.";
    });
  };
  const answers = new Map();
  const showFigure = async (card, again = false) => {
    if (again || !answers.has(card)) {
      try { answers.set(card, await load(card.dataset.figure)); } catch (error) { card.querySelector(".plot").textContent = error.message; return; }
    }
    drawFigures(card, answers.get(card));
  };
  for (const card of document.querySelectorAll("[data-figure]")) register(card, () => showFigure(card));
  setInterval(() => {
    const live = ["queued", "in_progress"].includes(document.getElementById("head")?.dataset.status);
    if (live && !document.hidden) for (const card of document.querySelectorAll("[data-figure][data-in-view=yes]")) showFigure(card, true);
  }, 8000);
  document.getElementById("chart-filter")?.addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const card of document.querySelectorAll("#figures [data-name]")) card.hidden = !card.dataset.name.toLowerCase().includes(wanted);
    if (data) showScalars();
  });
  document.addEventListener("theme", () => {
    if (data) showScalars();
    for (const card of answers.keys()) drawFigures(card, answers.get(card));
  });
})();
