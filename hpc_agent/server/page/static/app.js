// What every page does: parts that show themselves again, dialogs, notices, selection, keys.
(() => {
  "use strict";
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const dialog = $("#dialog");
  const selected = new Set();

  // Parts that show themselves again. They wait while the window is hidden, or a person types or chooses in them.
  const polled = new WeakMap();
  const isBusy = (part) => {
    const focus = document.activeElement;
    const typing = part.contains(focus) && focus.matches("input:not([type=checkbox]), textarea, select");
    return typing || $("details[open]", part) !== null || $("dialog[open]", part) !== null;
  };
  setInterval(() => {
    if (document.hidden) return;
    const now = Date.now();
    for (const part of all("[data-poll]")) {
      if (!polled.has(part)) polled.set(part, now);
      if (now - polled.get(part) >= Number(part.dataset.poll) && !isBusy(part)) {
        polled.set(part, now);
        htmx.trigger(part, "poll");
      }
    }
  }, 500);

  // A part that has not changed is not replaced: focus, selection and scrolling stay as they are.
  const shown = new Map();
  let focused = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (!target.id || !target.dataset.poll) return;
    if (shown.get(target.id) === xhr.responseText) event.detail.shouldSwap = false;
    shown.set(target.id, xhr.responseText);
    // A row of a table is another element afterwards: who walks through it with keys stays where they are.
    const row = document.activeElement?.closest("tr[data-id]");
    focused = row && target.contains(row) ? { id: row.dataset.id, kind: document.activeElement.localName } : null;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog" && !dialog.open) dialog.showModal();
    if (focused) $(`tr[data-id="${focused.id}"] ${focused.kind}`)?.focus({ preventScroll: true });
    focused = null;
    showSelection();
  });

  // Notices
  const notice = (text, { undo, error } = {}) => {
    const box = document.createElement("div");
    box.className = error ? "notice error" : "notice";
    const words = document.createElement("span");
    words.textContent = text;
    box.append(words);
    if (error) box.setAttribute("role", "alert");
    if (undo) box.append(button("Undo", () => { box.remove(); post(undo.action, undo.body); }));
    box.append(button("Close", () => box.remove()));
    $("#notices").append(box);
    setTimeout(() => box.remove(), error ? 15000 : 9000);
  };
  const button = (title, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = title;
    made.addEventListener("click", act);
    return made;
  };
  const post = (action, body) => {
    const values = {};
    for (const [name, value] of new URLSearchParams(body)) (values[name] ??= []).push(value);
    return htmx.ajax("POST", action, { values, swap: "none", target: "#notices" });
  };
  document.addEventListener("notice", (event) => {
    all("dialog[open]").forEach((open) => open.close());
    const { text, undo, go } = event.detail;
    const source = event.target;
    const address = go || $("[data-leave]", source)?.dataset.leave || (source.closest?.("[data-reload]") ? location.href : "");
    if (address) {
      try { sessionStorage.setItem("notice", JSON.stringify({ text, undo })); } catch { /* the notice is lost, not the action */ }
      if (address === location.href) location.reload(); else location.assign(address);
      return;
    }
    notice(text, { undo });
    clearSelection();
    htmx.trigger(document.body, "refresh");
  });
  try {
    const kept = JSON.parse(sessionStorage.getItem("notice") || "null");
    sessionStorage.removeItem("notice");
    if (kept) notice(kept.text, kept);
  } catch { /* nothing was kept */ }
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status !== 401) notice(event.detail.xhr.responseText.trim().slice(0, 600), { error: true });
  });
  let unreachable = false;
  document.addEventListener("htmx:sendError", () => {
    if (!unreachable) notice("The server does not answer. What is shown may be old.", { error: true });
    unreachable = true;
  });
  document.addEventListener("htmx:afterOnLoad", () => { unreachable = false; });

  // Selection in a table of tasks
  const showSelection = () => {
    const bar = $("#selection");
    if (!bar) return;
    const present = new Set();
    for (const box of all("#rows input[type=checkbox]")) {
      present.add(box.value);
      box.checked = selected.has(box.value);
      box.closest("tr").classList.toggle("selected", box.checked);
    }
    for (const id of selected) if (!present.has(id)) selected.delete(id);
    bar.hidden = selected.size === 0;
    $(".count", bar).textContent = `${selected.size} selected`;
    $("[data-action=compare]", bar).disabled = selected.size < 2;
    const every = $("#pick-all");
    if (every) {
      every.checked = present.size > 0 && selected.size === present.size;
      every.indeterminate = selected.size > 0 && selected.size < present.size;
    }
  };
  const clearSelection = () => { selected.clear(); showSelection(); };
  let lastPicked = null;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || !box.closest("#rows")) return;
    const boxes = all("#rows input[type=checkbox]");
    if (event.shiftKey && lastPicked !== null) {
      const [from, to] = [boxes.findIndex((other) => other.value === lastPicked), boxes.indexOf(box)].sort((a, b) => a - b);
      if (from >= 0) for (const other of boxes.slice(from, to + 1)) box.checked ? selected.add(other.value) : selected.delete(other.value);
    }
    box.checked ? selected.add(box.value) : selected.delete(box.value);
    lastPicked = box.value;
    showSelection();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "pick-all") {
      for (const box of all("#rows input[type=checkbox]")) event.target.checked ? selected.add(box.value) : selected.delete(box.value);
      showSelection();
    }
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });

  // Buttons
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (!pressed) return;
    const data = pressed.dataset;
    if (data.action) act(pressed);
    else if (data.post) ask(pressed);
    else if ("clear" in data) clearSelection();
    else if ("close" in data) pressed.closest("dialog").close();
    else if (data.open) $(data.open).showModal();
    else if (data.copy) navigator.clipboard?.writeText($(data.copy).textContent).then(() => notice("Copied."));
    else if (pressed.id === "theme") changeTheme();
    else if (pressed.id === "help") $("#keys").showModal();
  });
  const act = (pressed) => {
    const own = pressed.closest("[data-ids]");
    const ids = own ? own.dataset.ids.split(",") : [...selected];
    if (!ids.length) return;
    pressed.closest("details")?.removeAttribute("open");
    if (pressed.dataset.action === "compare") { location.assign(`/compare?ids=${ids.map(encodeURIComponent).join(",")}`); return; }
    if ("now" in pressed.dataset) {
      post(`/actions/${pressed.dataset.action}`, new URLSearchParams(ids.map((id) => ["id", id])));
      return;
    }
    const query = new URLSearchParams(ids.map((id) => ["id", id]));
    if (own) query.append("from", "task");
    htmx.ajax("GET", `/actions/${pressed.dataset.action}?${query}`, { target: "#dialog", swap: "innerHTML" });
  };
  const ask = (pressed) => {
    const values = JSON.parse(pressed.dataset.values || "{}");
    const send = () => htmx.ajax("POST", pressed.dataset.post, { values, swap: "none", source: pressed, target: "#notices" });
    if (!pressed.dataset.confirm) { send(); return; }
    const inner = document.createElement("div");
    inner.className = "inner";
    const title = document.createElement("h2");
    title.id = "dialog-title";
    title.textContent = pressed.dataset.confirm;
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    const sure = button(pressed.textContent.trim(), send);
    sure.className = "primary danger";
    buttons.append(button("Cancel", () => dialog.close()), sure);
    inner.append(title, buttons);
    dialog.replaceChildren(inner);
    dialog.showModal();
  };
  document.addEventListener("click", (event) => {
    for (const open of all("details.menu[open]")) if (!open.contains(event.target)) open.removeAttribute("open");
  });

  const changeTheme = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page only then */ }
    document.dispatchEvent(new Event("theme"));
  };

  // Keys
  const places = { d: "/dashboard", p: "/projects", t: "/projects/*/tasks", q: "/queues", w: "/workers", m: "/projects/*/models" };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.target.matches("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (Date.now() - going < 1500 && places[event.key]) { location.assign(places[event.key]); return; }
    going = event.key === "g" ? Date.now() : 0;
    const focused = document.activeElement.closest("tr[data-id]");
    if (event.key === "/") { const field = $("[data-search]"); if (field) { event.preventDefault(); field.focus(); field.select?.(); } }
    else if (event.key === "?") $("#keys").showModal();
    else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1, focused);
    else if (event.key === "x" && focused) $("input[type=checkbox]", focused)?.click();
    else if (event.key === "Escape") { all("details.menu[open]").forEach((menu) => menu.removeAttribute("open")); clearSelection(); }
  });
  const step = (by, from) => {
    const rows = all("tr[data-id]");
    const at = rows.indexOf(from);
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by];
    $("a", next || from || document)?.focus();
  };
})();
