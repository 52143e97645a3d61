"use strict";
// Draws the plots in the reader's theme, sorts the table, and lets axes be brushed.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const themes = read("themes");
  const specs = read("specs");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // A figure in the colours of a theme: traces say a role, not a colour.
  function themed(spec) {
    const theme = themes[dark.matches ? "dark" : "light"];
    const figure = structuredClone(spec);
    for (const trace of figure.data) {
      const colour = trace.meta && theme.roles[trace.meta.role];
      if (!colour) continue;
      if (trace.type === "bar") {
        trace.marker = { ...trace.marker, color: colour };
        if (trace.meta.outline) trace.marker.line = { width: 1, color: theme.layout.hoverlabel.bgcolor };
      } else {
        trace.line = { ...trace.line, color: colour };
        if (trace.marker) {
          trace.marker.color = colour;
          trace.marker.line = { ...trace.marker.line, color: colour };
        }
      }
      if (trace.meta.halo) trace.marker.line.color = theme.layout.hoverlabel.bgcolor;
      if (trace.error_x) trace.error_x.color = theme.ink;
    }
    const layout = figure.layout;
    if (layout.coloraxis) {
      layout.coloraxis.colorscale = theme.scale; // from the worst to the best
      layout.coloraxis.reversescale = (layout.meta || {}).best === "low";
    }
    for (const note of layout.annotations || []) {
      note.font = { ...note.font, color: theme.ink };
      note.bgcolor = theme.veil; // the ticks of the parallel coordinates lie over the lines
    }
    layout.template = { layout: theme.layout };
    if (touch) layout.dragmode = false; // a finger that drags scrolls the page
    return figure;
  }

  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  function draw(id) {
    const figure = themed(specs[id]);
    const own = { ...config };
    if (figure.layout.meta && figure.layout.meta.brush) own.displayModeBar = false;
    return Plotly.react(document.getElementById(id), figure.data, figure.layout, own);
  }

  // Plots in sight first; the others one by one, so that the page can be read meanwhile.
  const waiting = new Set(Object.keys(specs));
  async function drawNow(id) {
    if (!waiting.delete(id)) return;
    await draw(id);
    if ((specs[id].layout.meta || {}).brush) startBrushing(document.getElementById(id));
  }
  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawNow(entry.target.id);
  }, { rootMargin: "200px" });
  for (const id of waiting) sight.observe(document.getElementById(id));
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 20));
  async function drawRest() {
    const [next] = waiting;
    if (next === undefined) {
      document.documentElement.dataset.drawn = "all";
      return;
    }
    await drawNow(next);
    idle(drawRest);
  }
  idle(drawRest);
  dark.addEventListener("change", () => {
    for (const id of Object.keys(specs)) if (!waiting.has(id)) draw(id);
  });
  addEventListener("beforeprint", () => { for (const id of [...waiting]) drawNow(id); });

  // Sorting.
  const table = document.getElementById("table");
  if (table) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, i) => {
      const cell = row.cells[i];
      if ("missing" in cell.dataset) return null;
      return "by" in cell.dataset ? Number(cell.dataset.by) : cell.textContent;
    };
    heads.forEach((head, i) => {
      if ([...body.rows].some((row) => "by" in row.cells[i].dataset)) head.classList.add("n");
      head.querySelector("button").addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [key(row, i), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null); // missing ones last
          if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
          return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en"));
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Shows just these trials in the table; all, where there is no set.
  function filterTable(chosen) {
    if (!table) return;
    for (const row of table.tBodies[0].rows) {
      row.hidden = chosen !== null && !chosen.has(Number(row.cells[0].dataset.by));
    }
    document.getElementById("filtered").textContent =
      chosen === null ? "" : "Shown are the trials brushed in the parallel coordinates.";
  }

  // Brushing: a strip over each axis of the parallel coordinates takes a range of it.
  function startBrushing(plot) {
    const { axes, trials } = specs[plot.id].layout.meta.brush;
    const lines = specs[plot.id].data.slice(0, trials.length).map((trace) => trace.y);
    const ranges = axes.map(() => null); // [low, high] between 0 and 1, from the bottom
    const strips = axes.map((name, i) => strip(name, i));
    const status = document.getElementById("brushed");

    function strip(name, i) {
      const element = document.createElement("div");
      element.className = "brush-axis";
      element.tabIndex = 0;
      element.setAttribute("role", "group");
      const mark = document.createElement("div");
      mark.className = "brush-range";
      mark.hidden = true;
      element.append(mark);
      plot.append(element);
      let from = null;
      const at = (event) => {
        const box = element.getBoundingClientRect();
        return Math.min(1, Math.max(0, 1 - (event.clientY - box.top) / box.height));
      };
      const drag = (event) => {
        const to = at(event);
        ranges[i] = [Math.min(from, to), Math.max(from, to)];
        update();
      };
      element.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        element.focus({ focusVisible: false });
        element.setPointerCapture(event.pointerId);
        from = at(event);
        ranges[i] = null; // a click clears the axis
        update();
      });
      element.addEventListener("pointermove", (event) => { if (from !== null) drag(event); });
      for (const end of ["pointerup", "pointercancel"]) {
        element.addEventListener(end, () => { from = null; });
      }
      element.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
        if (event.key === "Escape") ranges[i] = null;
        else if (step) {
          const [low, high] = ranges[i] || [0.25, 0.75];
          const moved = event.shiftKey ? [low - step, high + step] : [low + step, high + step];
          if (moved[1] - moved[0] >= 0.04 && moved[0] > -0.04 && moved[1] < 1.04) {
            ranges[i] = [Math.max(0, moved[0]), Math.min(1, moved[1])];
          }
        } else return;
        event.preventDefault();
        update();
      });
      return { element, mark, name };
    }

    function place() {
      const size = plot._fullLayout._size;
      const [bottom, top] = plot._fullLayout.yaxis.range;
      const [left, right] = plot._fullLayout.xaxis.range;
      strips.forEach(({ element }, i) => {
        element.style.left = `${size.l + (size.w * (i - left)) / (right - left)}px`;
        element.style.top = `${size.t + (size.h * (top - 1)) / (top - bottom)}px`;
        element.style.height = `${size.h / (top - bottom)}px`;
      });
      paint();
    }

    function kept() {
      // A little slack: a range drawn to the end of an axis takes what lies there.
      const within = (y, range) => range === null || (y >= range[0] - 0.005 && y <= range[1] + 0.005);
      return lines.map((line) => ranges.every((range, i) => within(line[i], range)));
    }

    function paint() {
      const keep = kept();
      const brushed = ranges.some((range) => range !== null);
      plot.querySelectorAll(".scatterlayer .trace").forEach((node, n) => {
        if (n >= keep.length) return;
        node.style.opacity = !brushed ? "" : keep[n] ? "1" : "0.06";
      });
      strips.forEach(({ element, mark, name }, i) => {
        const range = ranges[i];
        mark.hidden = range === null;
        if (range) {
          mark.style.bottom = `${100 * range[0]}%`;
          mark.style.top = `${100 * (1 - range[1])}%`;
        }
        const said = range === null ? "whole range" : range.map((r) => `${Math.round(100 * r)} %`).join(" to ");
        element.setAttribute("aria-label", `${name}: ${said}. Arrow keys brush.`);
      });
      return [brushed, keep];
    }

    function update() {
      const [brushed, keep] = paint();
      const chosen = trials.filter((_, n) => keep[n]);
      status.textContent = brushed ? `${chosen.length} of ${trials.length} trials are in the brushed ranges.` : "";
      if (brushed) {
        const clear = document.createElement("button");
        clear.type = "button";
        clear.textContent = "Clear";
        clear.addEventListener("click", () => { ranges.fill(null); update(); });
        status.append(clear);
      }
      filterTable(brushed ? new Set(chosen) : null);
    }

    plot.on("plotly_afterplot", place);
    place();
  }
})();
