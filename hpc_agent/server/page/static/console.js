// The console of a task: it follows its end until a person scrolls up, and marks what is searched for.
(() => {
  "use strict";
  const box = document.getElementById("console");
  const follow = document.getElementById("follow");
  const wrap = document.getElementById("wrap");
  const search = document.getElementById("console-search");
  const toEnd = () => { if (follow.checked) box.scrollTop = box.scrollHeight; };
  toEnd();

  let own = 0;
  const atEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  box.addEventListener("scroll", () => {
    if (Date.now() - own > 200 && !location.search.includes("before=")) follow.checked = atEnd();
  });
  follow.addEventListener("change", toEnd);
  wrap.addEventListener("change", () => {
    for (const part of box.querySelectorAll("pre")) part.classList.toggle("wide", !wrap.checked);
  });
  const mark = () => {
    if (!window.CSS?.highlights) return;
    CSS.highlights.delete("found");
    const text = search.value.trim().toLowerCase();
    if (text.length < 2) return;
    const ranges = [];
    const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && ranges.length < 5000) {
      const content = walker.currentNode.data.toLowerCase();
      for (let at = content.indexOf(text); at >= 0 && ranges.length < 5000; at = content.indexOf(text, at + text.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + text.length);
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };
  search.addEventListener("input", mark);
  document.addEventListener("htmx:afterSettle", (event) => {
    if (!box.contains(event.target) && event.target.id !== "later") return;
    if (box.querySelector("pre:not(:empty)")) document.getElementById("no-lines")?.remove();
    for (const part of box.querySelectorAll("pre")) part.classList.toggle("wide", !wrap.checked);
    own = Date.now();
    toEnd();
    mark();
  });
})();
