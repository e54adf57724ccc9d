// The few things that every panel does to the document.

/** An element with attributes and children; text stays text. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Sets text only where it differs: the browser lays out nothing then. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A canvas in device pixels, drawn in CSS pixels. Returns its context. */
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio);
  const h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Colours of the theme, for canvases. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    accent1: of("accent-1"), accent2: of("accent-2"), accent3: of("accent-3"), accent4: of("accent-4"),
    onAccent: of("on-accent"), signal: of("signal"), alarm: of("alarm"), text: of("text"), dim: of("dim"),
    faint: of("faint"), line: of("line"), grid: of("grid"), surface: of("surface"), sunken: of("sunken"),
    font: of("font"),
  };
}

const tip = document.getElementById("tip");

/** Shows a few lines beside the pointer. */
export function showTip(text, x, y) {
  setText(tip, text);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
}

export function hideTip() {
  tip.hidden = true;
}
