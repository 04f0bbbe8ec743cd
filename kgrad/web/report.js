"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("moment");
  const said = document.getElementById("said");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PRINTED_WIDTH = 680; // pixels
  const REST = 100; // milliseconds
  const plots = [];

  const numbers = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Float64Array(bytes.buffer);
  };
  const ink = (isDark) => ({ "font.color": isDark ? "#e8e8ec" : "#1b1b1f" });

  // The special value that a number is, as it is named where its strip is.
  const kind = (value) =>
    value === 0 ? "zero" : Number.isNaN(value) ? "nan" : Number.isFinite(value) ? "" : "infinite";
  const text = (value) =>
    ({ "": value.toPrecision(3), zero: "0 (exactly)", nan: "NaN", infinite: "infinite" })[kind(value)];

  function markProfile(plot, row, label) {
    const { values, layers, strips, trace, symbols } = plot.profile;
    const one = values.subarray(row * layers, (row + 1) * layers);
    const ordinary = [], at = [], look = [], words = [];
    one.forEach((value) => {
      const strip = kind(value) in strips ? kind(value) : "";
      ordinary.push(strip || !Number.isFinite(value) ? null : value);
      at.push(strip ? strips[strip] : null);
      look.push(strip ? symbols[strip] : "circle");
      words.push(`${label}: ${text(value)}`);
    });
    Plotly.restyle(
      plot.element,
      {
        y: [ordinary, at],
        customdata: [words, words],
        "marker.symbol": ["circle", look],
        name: [label, label],
      },
      [trace, trace + 1],
    );
  }

  const seen = ({ element }) => {
    const { top, bottom } = element.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  };

  function markPlot(plot, position) {
    const changes = {};
    (plot.element.layout.shapes || []).forEach((shape, i) => {
      if (shape.name !== "marked") return;
      changes[`shapes[${i}].x0`] = changes[`shapes[${i}].x1`] = plot.marks[position];
    });
    if (Object.keys(changes).length) Plotly.relayout(plot.element, changes);
    if (plot.profile) markProfile(plot, plot.rows[position], data.labels[position]);
  }

  // What is not on the screen follows when the slider rests.
  let rest = 0;
  function mark() {
    const position = Number(slider.value);
    const label = data.labels[position];
    said.textContent = label;
    slider.setAttribute("aria-valuetext", label);
    const onScreen = plots.filter(seen);
    onScreen.forEach((plot) => markPlot(plot, position));
    clearTimeout(rest);
    rest = setTimeout(() => {
      plots.filter((plot) => !onScreen.includes(plot)).forEach((plot) => markPlot(plot, position));
      document.documentElement.dataset.marked = position;
    }, REST);
  }

  function nearest(marks, x) {
    let best = 0;
    marks.forEach((mark, i) => {
      if (Math.abs(mark - x) < Math.abs(marks[best] - x)) best = i;
    });
    return best;
  }

  for (const { id, figure, marks, rows, profile } of data.figures) {
    const element = document.getElementById(id);
    figure.layout.font.color = ink(dark.matches)["font.color"];
    Plotly.newPlot(element, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d"],
    });
    if (profile) profile.values = numbers(profile.values);
    plots.push({ element, marks, rows, profile });
    if (marks && slider) {
      element.on("plotly_click", (event) => {
        slider.value = nearest(marks, event.points[0].x);
        mark();
      });
    }
  }
  const paint = (isDark) => plots.forEach(({ element }) => Plotly.relayout(element, ink(isDark)));
  dark.addEventListener("change", (event) => paint(event.matches));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((one) => (one.open = true));
    plots.forEach(({ element }) =>
      Plotly.relayout(element, { ...ink(false), width: PRINTED_WIDTH }),
    );
  });
  window.addEventListener("afterprint", () =>
    plots.forEach(({ element }) =>
      Plotly.relayout(element, { ...ink(dark.matches), width: null, autosize: true }),
    ),
  );
  if (slider) {
    let due = false;
    slider.addEventListener("input", () => {
      if (due) return;
      due = true;
      requestAnimationFrame(() => {
        due = false;
        mark();
      });
    });
    mark();
  }
  document.documentElement.dataset.ready = "true";
})();
