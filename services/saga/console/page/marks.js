// How steps, gaps, waits, moves and steals are drawn on a line of time. Used by the lanes and by one workflow's page.

const LEAST_WAIT_S = 0.2; // shorter ones are how long the control plane takes

/**
 * One row: `steps` oldest first, `at(seconds)` a place on the x axis between `left` and `right`, `y` the middle.
 * `row` has the state of its workflow; `font` for the worker's name inside a step.
 */
export function steps(draw, colours, list, { at, left, right, now, y, height, state, back_s }) {
  const top = y - height / 2;
  let before = null;
  for (const step of list) {
    const ends = step.end_s >= 0 || step.phase === "finished" ? step.end_s : now;
    const x2 = at(ends);
    if (x2 < left) { before = step; continue; }
    if (before && before.session === step.session) gap(draw, colours, at(before.end_s), at(step.ready_s), y, left);
    const started = step.start_s >= 0 || step.phase === "finished" || step.phase === "running";
    const waitEnd = started ? step.start_s : ends;
    if (waitEnd - step.ready_s > LEAST_WAIT_S) bar(draw, colours.signal, at(step.ready_s), at(waitEnd), y - 1.5, 3, left);
    if (started) run(draw, colours, step, { at, left, top, height, x2, now });
    if (started && step.moved_from) mark(draw, colours, step, at(step.start_s), top, left);
    if (step.phase === "failed") cross(draw, colours, x2, y, left);
    before = step;
  }
  if (before && before.end_s >= 0 && state !== "closed") rest(draw, colours, at(before.end_s), at(now), y, left, state);
  if (back_s > now && state === "gap") ring(draw, colours, Math.min(at(back_s), right - 5), y, at(back_s) > right - 5);
}

function run(draw, colours, step, { at, left, top, height, x2, now }) {
  const x1 = at(step.start_s);
  const first = step.first_token_s >= 0 ? at(step.start_s + step.first_token_s) : step.phase === "running" ? x1 : x1;
  const w = Math.max(1.5, x2 - x1);
  bar(draw, step.phase === "cancelled" ? colours.faint : colours.accent2, x1, x1 + w, top, height, left);
  if (first > x1 + 0.5) bar(draw, colours.accent1, x1, Math.min(first, x1 + w), top, height, left);
  const seen = Math.max(x1, left);
  if (x1 + w - Math.max(first, seen) > 22 && height >= 11) {
    draw.fillStyle = colours.onAccent;
    draw.fillText(step.worker, Math.max(first, seen) + 4, top + height - 3);
  }
  if (step.phase === "running" && now > step.start_s) {
    draw.fillStyle = colours.accent1;
    draw.fillRect(x1 + w - 1.5, top, 1.5, height);
  }
}

function gap(draw, colours, x1, x2, y, left) {
  if (x2 - x1 > 1) bar(draw, colours.accent3, x1, x2, y - 0.75, 1.5, left);
}

/** From the last step to now. */
function rest(draw, colours, x1, x2, y, left, state) {
  const from = Math.max(x1, left);
  if (x2 <= from) return;
  if (state === "gap" || state === "running") {
    bar(draw, colours.accent3, from, x2, y - 0.75, 1.5, left);
    return;
  }
  draw.fillStyle = colours.faint;
  for (let x = from + (6 - (from % 6)); x < x2; x += 6) draw.fillRect(x, y - 0.5, 1.5, 1);
}

function bar(draw, colour, x1, x2, y, height, left) {
  const from = Math.max(x1, left);
  if (x2 <= from) return;
  draw.fillStyle = colour;
  draw.fillRect(from, y, x2 - from, height);
}

/** A move: a small triangle above the step; a steal: a diamond. */
function mark(draw, colours, step, x, top, left) {
  if (x < left - 4) return;
  draw.fillStyle = colours.signal;
  draw.beginPath();
  if (step.reason === "stolen") {
    draw.moveTo(x, top - 5);
    draw.lineTo(x + 4, top - 1);
    draw.lineTo(x, top + 3);
    draw.lineTo(x - 4, top - 1);
  } else {
    draw.moveTo(x - 4, top - 4);
    draw.lineTo(x + 4, top - 4);
    draw.lineTo(x, top + 2);
  }
  draw.fill();
}

function cross(draw, colours, x, y, left) {
  if (x < left) return;
  draw.strokeStyle = colours.alarm;
  draw.lineWidth = 1.5;
  draw.beginPath();
  draw.moveTo(x - 3, y - 3);
  draw.lineTo(x + 3, y + 3);
  draw.moveTo(x + 3, y - 3);
  draw.lineTo(x - 3, y + 3);
  draw.stroke();
}

/** When its next step is expected; open to the right when that is beyond the picture. */
function ring(draw, colours, x, y, beyond) {
  draw.strokeStyle = colours.accent2;
  draw.lineWidth = 1.5;
  draw.beginPath();
  if (beyond) draw.arc(x, y, 3, 0.5 * Math.PI, 1.5 * Math.PI);
  else draw.arc(x, y, 3, 0, 2 * Math.PI);
  draw.stroke();
}

/** Vertical lines at round times, with their labels. */
export function axis(draw, colours, { at, left, right, top, bottom, now, span, offset, label }) {
  const every = [5, 10, 15, 30, 60, 120, 300, 600].find((step) => (span / step) * 62 < right - left) ?? 900;
  draw.textAlign = "center";
  const shift = offset % every; // round on the wall clock
  for (let t = Math.ceil((now - span + shift) / every) * every - shift; t <= now; t += every) {
    const x = Math.round(at(t)) + 0.5;
    if (x < left + 1) continue;
    draw.fillStyle = colours.grid;
    draw.fillRect(x - 0.5, top, 1, bottom - top);
    if (x > left + 26 && x < at(now) - 44) {
      draw.fillStyle = colours.faint;
      draw.fillText(label(t), x, top - 7);
    }
  }
  draw.fillStyle = colours.dim;
  draw.fillText("now", at(now), top - 7);
  draw.fillStyle = colours.line;
  draw.fillRect(Math.round(at(now)), top, 1, bottom - top);
  draw.textAlign = "left";
}
