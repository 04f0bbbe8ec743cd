"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("moment");
  const said = document.getElementById("said");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PRINTED_WIDTH = 680; // pixels
  const REST = 100; // milliseconds
  const REACH = 18; // pixels around a node
  const plots = [];

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  // --- Dark pages. Figures are made for white ones: grays are turned around, from white as the
  // panel to black as the ink, and colors are mixed with white, so that their order stays.
  const PANEL = [34, 34, 39], INK = [232, 232, 236]; // the page's --box and --text
  const WHITENED = 0.4;
  const NAMED = { white: "#ffffff", black: "#000000" };
  let isDark = dark.matches;

  function parsed(color) {
    const text = NAMED[color] ?? color;
    if (/^#[0-9a-f]{6}$/i.test(text)) return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
    if (/^#[0-9a-f]{3}$/i.test(text)) return [1, 2, 3].map((i) => 17 * parseInt(text[i], 16));
    return text.match(/^rgba?\((.*)\)$/)?.[1].split(",").map(Number) ?? null;
  }

  function onDark(color) {
    const parts = typeof color === "string" ? parsed(color) : null;
    if (!parts) return color; // a number, of a color scale
    const [rgb, alpha] = [parts.slice(0, 3), parts[3] ?? 1];
    const gray = Math.max(...rgb) - Math.min(...rgb) < 16;
    const turned = rgb.map((value, i) =>
      Math.round(
        gray ? INK[i] + (value / 255) * (PANEL[i] - INK[i]) : value + WHITENED * (255 - value),
      ),
    );
    return `rgba(${turned.join(",")},${alpha})`;
  }

  const brightness = (color) => (parsed(color) ?? [0]).reduce((sum, value) => sum + value, 0);

  // A scale of magnitudes grows away from the page; that of a line's depth follows its lines.
  // One that is brightest in the middle says below or above: its colors keep their meaning.
  function scaleOnDark(scale, isOfLines) {
    const [first, last] = [scale[0][1], scale.at(-1)[1]];
    const middle = brightness(scale[scale.length >> 1][1]);
    if (middle > 1.2 * Math.max(brightness(first), brightness(last))) return scale;
    if (isOfLines || first === last) return scale.map(([at, color]) => [at, onDark(color)]);
    if (brightness(first) <= brightness(last)) return scale;
    return scale.map(([at, color]) => [1 - at, color]).reverse();
  }

  function turned(part, key = "", isOfLines = false) {
    if (key === "colorscale") return scaleOnDark(part, isOfLines);
    if (/color$/.test(key) && typeof part !== "object") return onDark(part);
    if (/color$/.test(key) && Array.isArray(part)) return part.map(onDark);
    if (key === "shadow") return part.replaceAll("white", onDark("white"));
    if (Array.isArray(part)) {
      const holds = typeof part[0] === "object";
      return holds ? part.map((one) => turned(one, "", isOfLines)) : part;
    }
    if (part === null || typeof part !== "object" || ArrayBuffer.isView(part)) return part;
    return Object.fromEntries(
      Object.entries(part).map(([name, value]) => [
        name,
        turned(value, name, isOfLines || name === "marker"),
      ]),
    );
  }

  const shownAs = ({ data, layout }) =>
    isDark ? { data: turned(data), layout: turned(layout) } : structuredClone({ data, layout });
  const tinted = (color) => (isDark ? onDark(color) : color);

  function markProfile(plot, row, label) {
    const { values, codes, layers, special, trace } = plot.profile;
    const one = values.subarray(row * layers, (row + 1) * layers);
    const ordinary = [], at = [], look = [], words = [];
    one.forEach((value, i) => {
      const strip = special[codes[row * layers + i] - 1]; // undefined for an ordinary number
      ordinary.push(strip ? null : value);
      at.push(strip ? strip.height : null);
      look.push(strip ? strip.symbol : "circle");
      words.push(`${label}: ${strip ? strip.name : value.toPrecision(3)}`);
    });
    Plotly.restyle(
      plot.element,
      {
        y: [ordinary, at],
        customdata: [words, words],
        "marker.symbol": ["circle", look],
        name: [`${label}, marked`, `${label}, marked`],
      },
      [trace, trace + 1],
    );
  }

  // A number as Python's format "g" writes it.
  const general = (value, digits) => {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return exponent < -4 || exponent >= digits
      ? `${Number(mantissa)}e${exponent}`
      : String(Number(value.toPrecision(digits)));
  };

  // A norm as the figures write it: two digits.
  const brief = (value) => {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return exponent < -4 || exponent >= 4
      ? `${Number(mantissa)}e${Number(exponent)}`
      : String(Number(value.toPrecision(2)));
  };

  // The appearance and the texts of a flow graph's nodes or edges at one of its records.
  function partsAt({ count, codes, logs, looks, missing }, row, label) {
    const at = { numbers: [], told: [] };
    for (const key in looks) at[key] = [];
    for (let i = 0; i < count; i++) {
      const code = codes[row * count + i];
      const norm = 10 ** logs[row * count + i];
      for (const key in looks) {
        const look = looks[key][code];
        at[key].push(/color|marked/.test(key) ? tinted(look) : look);
      }
      const shown = looks.shown[code];
      const words = looks.words[code];
      at.numbers.push(shown ?? brief(norm));
      at.told.push(
        `${label}: ${shown === null ? general(norm, 3) + words : words || missing[i]}`,
      );
    }
    return at;
  }

  const blockOf = (id) => document.getElementById(id).closest("details");

  // Changes the traces directly: for hundreds of them Plotly.restyle takes twice as long.
  function markFlow({ element, flow, arrangement }, row, label) {
    const [ofWeights, ofEdge] = flow.called;
    // Words such as "no path" need no symbol.
    const named = (called, number) =>
      !number || number.includes(" ") ? number : `${called} ${number}`;
    const edges = partsAt(flow.edges, row, label);
    const nodes = partsAt(flow.nodes, row, label);
    const lines = element.data.slice(0, edges.told.length);
    const [numbers, circles, names] = element.data.slice(edges.told.length);
    lines.forEach(({ line }, i) => {
      for (const key of ["color", "dash", "width"]) line[key] = edges[key][i];
      lines[i].meta = edges.told[i];
    });
    for (const key of ["symbol", "size"]) {
      numbers.marker[key] = edges[key];
      circles.marker[key] = nodes[key];
    }
    numbers.marker.color = edges.marked;
    circles.marker.color = nodes.color;
    for (const { node, id } of flow.blocks) {
      const norm = named(ofWeights, nodes.numbers[node]);
      blockOf(id).querySelector("span").textContent = norm && `, ${norm}`;
    }
    numbers.text = edges.numbers.map((number, i) => (flow.numbered[i] ? named(ofEdge, number) : ""));
    circles.text = nodes.told;
    names.text = nodes.numbers.map((number, i) =>
      [
        arrangement.names[i],
        [flow.layers[i], named(ofWeights, number)].filter(Boolean).join(", "),
      ]
        .filter(Boolean)
        .map((line) => flow.indent + line)
        .join("<br>"),
    );
    Plotly.redraw(element);
  }

  // The widest arrangement of a flow graph that fits.
  const fitting = ({ arrangements }, width) =>
    arrangements.filter(({ least }) => least <= width).at(-1) ?? arrangements[0];

  function rearrange(plot, width, position) {
    const next = fitting(plot.flow, width);
    if (next === plot.arrangement) return;
    plot.arrangement = next;
    const traces = plot.element.data;
    next.x.forEach((x, i) => Object.assign(traces[i], { x, y: next.y[i] }));
    traces[next.places.length].textposition = next.places;
    markFlow(plot, plot.rows[position], data.labels[position]);
    Plotly.relayout(plot.element, { ...next.layout, autosize: true });
  }
  const standing = () => (slider ? Number(slider.value) : 0);

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
    if (plot.flow) markFlow(plot, plot.rows[position], data.labels[position]);
  }

  // Figures that are not on the screen are redrawn when the slider rests.
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

  // Draws a figure in the page's theme.
  function draw(plot) {
    const { element, figure, flow } = plot;
    const { data, layout } = shownAs(figure);
    Plotly.react(element, data, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d"],
    });
    plot.arrangement = flow?.arrangements[0];
    if (flow) rearrange(plot, element.clientWidth, standing());
  }

  function paint(nowDark) {
    isDark = nowDark;
    plots.forEach((plot) => {
      draw(plot);
      if (slider) markPlot(plot, standing());
    });
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
  }

  function nearest(marks, x) {
    let best = 0;
    marks.forEach((mark, i) => {
      if (Math.abs(mark - x) < Math.abs(marks[best] - x)) best = i;
    });
    return best;
  }

  for (const { id, figure, marks, rows, profile, flow, opens } of data.figures) {
    const element = document.getElementById(id);
    if (profile) {
      profile.values = new Float64Array(bytes(profile.values).buffer);
      profile.codes = bytes(profile.codes);
    }
    for (const part of flow ? [flow.nodes, flow.edges] : []) {
      part.codes = bytes(part.codes);
      part.logs = new Float32Array(bytes(part.logs).buffer);
    }
    const plot = { element, figure, marks, rows, profile, flow };
    const block = element.closest(".block");
    if (block) {
      block.addEventListener("toggle", () => showBlock(plot));
      continue;
    }
    plots.push(plot);
    draw(plot);
    if (marks && slider) {
      element.on("plotly_click", (event) => {
        slider.value = nearest(marks, event.points[0].x);
        mark();
      });
    }
    if (flow) element.on("plotly_click", ({ event }) => openBlock(blockAt(plot, event)));
    if (opens) {
      element.on("plotly_click", ({ points }) => {
        const [row, column] = points.find(({ z }) => z !== undefined)?.pointNumber ?? [];
        openBlock(document.getElementById(opens[row]?.[column]));
      });
    }
  }
  document.addEventListener("click", ({ target }) => {
    const link = target.closest?.('a[href^="#"]');
    openBlock(link && document.getElementById(link.hash.slice(1))?.closest(".block"));
  });

  // A block's own graph is drawn when it is opened for the first time.
  function showBlock(plot) {
    if (plots.includes(plot)) return;
    plots.push(plot);
    draw(plot);
    if (slider) markPlot(plot, standing());
  }

  // The block whose node is at the pointer; Plotly may name an edge that ends there.
  function blockAt({ element, flow }, { clientX, clientY }) {
    const { left, top, width, height } = element.querySelector(".nsewdrag").getBoundingClientRect();
    const { xaxis, yaxis } = element.layout;
    const nodes = element.data[flow.edges.count + 1];
    const at = (value, [from, to]) => (value - from) / (to - from);
    const found = flow.blocks.find(({ node }) => {
      const x = left + width * at(nodes.x[node], xaxis.range);
      const y = top + height * (1 - at(nodes.y[node], yaxis.range));
      return Math.hypot(clientX - x, clientY - y) < REACH;
    });
    return found && blockOf(found.id);
  }

  function openBlock(block) {
    if (!block) return;
    block.open = true;
    block.querySelector("summary").focus({ preventScroll: true });
    block.scrollIntoView();
  }
  window.addEventListener("resize", () =>
    plots
      .filter(({ flow }) => flow)
      .forEach((plot) => rearrange(plot, plot.element.clientWidth, standing())),
  );
  dark.addEventListener("change", (event) => paint(event.matches));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not(.block)").forEach((one) => (one.open = true));
    paint(false);
    plots.forEach((plot) => {
      if (plot.flow) rearrange(plot, PRINTED_WIDTH, standing());
      Plotly.relayout(plot.element, { width: PRINTED_WIDTH });
    });
  });
  window.addEventListener("afterprint", () => {
    plots.forEach(({ element }) => Plotly.relayout(element, { width: null, autosize: true }));
    paint(dark.matches);
  });
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
