// Draws the network of `kgrad.apps.page.network`, whose `drawing` describes the data.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 300;
const MOST_ROWS = 5;
const PULSE = 900; // milliseconds from the loss to the input

function add(parent, kind, attributes, text) {
  const element = document.createElementNS(SVG, kind);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// The places of the boxes, from left to right in as few rows as fit.
function places(count, width) {
  let rows = 1;
  const least = () => (rows < 3 ? 44 : 28);
  while (rows < MOST_ROWS && Math.ceil(count / rows) * least() > width) rows += 1;
  const columns = Math.ceil(count / rows);
  const [dx, dy] = [width / columns, HEIGHT / rows];
  const at = (i) => ({
    x: dx * ((i % columns) + 0.5),
    y: dy * (Math.floor(i / columns) + 0.5),
    row: Math.floor(i / columns),
  });
  const box = { width: Math.min(58, 0.6 * dx), height: Math.min(70, 0.42 * dy) };
  return { at, box, dx, dy };
}

// The way from one box to the next, which may be in the next row.
function between(a, b, { box, dx, dy }) {
  const [x0, x1] = [a.x + box.width / 2, b.x - box.width / 2];
  if (a.row === b.row) return `M${x0},${a.y}H${x1}`;
  const [right, left, middle] = [a.x + 0.45 * dx, b.x - 0.45 * dx, a.y + dy / 2];
  return `M${x0},${a.y}H${right}V${middle}H${left}V${b.y}H${x1}`;
}

// The way around two boxes. If the second is in the next row, the way leaves the drawing on the
// right and comes back on the left: between the rows it would cover the way between the boxes.
function over(a, b, { box, dx, dy }) {
  const up = box.height / 2 + Math.min(26, 0.2 * dy);
  const [x0, x1] = [a.x - 0.5 * dx, b.x + 0.5 * dx];
  const start = `M${x0},${a.y}C${x0},${a.y - up} ${x0},${a.y - up} ${a.x},${a.y - up}`;
  const end = `H${b.x}C${x1},${b.y - up} ${x1},${b.y - up} ${x1},${b.y}`;
  if (a.row === b.row) return start + end;
  return `${start}H${a.x + 0.5 * dx}M${b.x - 0.5 * dx},${b.y - up}${end}`;
}

function drawBox(svg, node, place, { box, dx }) {
  const group = add(svg, "g", { class: `node ${node.kind}` });
  add(group, "title", {}, node.text);
  const [left, top] = [place.x - box.width / 2, place.y - box.height / 2];
  add(group, "rect", { x: left, y: top, width: box.width, height: box.height, rx: 5 });
  const most = Math.max(...(node.counts ?? []), 1);
  const bar = (box.width - 6) / (node.counts?.length ?? 1);
  node.counts?.forEach((count, i) => {
    const height = ((box.height - 8) * count) / most;
    const [x, y] = [left + 3 + i * bar, top + box.height - 4 - height];
    if (count) add(group, "rect", { class: "bar", x, y, width: bar, height });
  });
  if (!node.counts && node.kind !== "layer")
    add(group, "text", { x: place.x, y: place.y + 4 }, dx > 40 ? node.name : node.name[0]);
  else if (dx > 24)
    add(group, "text", { x: place.x, y: top + box.height + 13 }, dx > 62 ? node.name : node.short);
}

// A dot as wide as the gradient, which runs from the loss to the input.
function pulse(svg, ways) {
  const dot = add(svg, "circle", { class: "pulse", r: 0 });
  const lengths = ways.map(({ path }) => path.getTotalLength());
  const start = performance.now();
  const move = (now) => {
    const done = Math.max(0, now - start) / PULSE; // a frame may have begun before
    if (done >= 1 || !svg.isConnected) return dot.remove();
    const from = ways.length - 1 - Math.floor(done * ways.length);
    const share = 1 - ((done * ways.length) % 1);
    const at = ways[from].path.getPointAtLength(share * lengths[from]);
    dot.setAttribute("cx", at.x);
    dot.setAttribute("cy", at.y);
    dot.setAttribute("r", 1 + 0.75 * ways[from].width);
    requestAnimationFrame(move);
  };
  requestAnimationFrame(move);
}

function drawn(place, data) {
  const width = place.clientWidth;
  if (!width) return null;
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ width, height: HEIGHT, role: "img" }))
    svg.setAttribute(key, value);
  add(svg, "title", {}, data.title);
  place.replaceChildren(svg);
  const layout = places(data.nodes.length, width);
  const at = data.nodes.map((_, i) => layout.at(i));
  for (const { from, to, width: thick, kind, text } of data.arcs) {
    const d = over(at[from], at[to], layout);
    const path = add(svg, "path", { d, class: `edge ${kind}`, "stroke-width": thick });
    add(path, "title", {}, text);
  }
  const ways = data.edges.map(({ width: thick, kind, text }, i) => {
    const d = between(at[i], at[i + 1], layout);
    const path = add(svg, "path", { d, class: `edge ${kind}`, "stroke-width": thick });
    add(path, "title", {}, text);
    return { path, width: thick };
  });
  data.nodes.forEach((node, i) => drawBox(svg, node, at[i], layout));
  return { svg, ways };
}

export default function ({ data, parentElement }) {
  const place = parentElement.querySelector(".network");
  place.style.height = `${HEIGHT}px`;
  place.dataset.pulse = data.pulse;
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const moves = place.shown && place.shown.pulse !== data.pulse && data.pulse > 0;
  place.shown = data;
  const result = drawn(place, data);
  if (result && moves && !still) {
    place.pulses = (place.pulses ?? 0) + 1;
    pulse(result.svg, result.ways);
  }
  if (!place.watched) {
    let before = place.clientWidth;
    place.watched = new ResizeObserver(() => {
      if (place.clientWidth === before) return;
      before = place.clientWidth;
      drawn(place, place.shown);
    });
    place.watched.observe(place);
  }
}
