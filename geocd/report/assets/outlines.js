// All changes on one canvas: a layer of Leaflet that draws what is in view, and finds what is
// under the pointer.

const SMALLEST = 4; // Pixels of the screen below which a change is drawn as a spot.
const REACH = 6; // Pixels of the screen within which a click hits.

const Outlines = L.Layer.extend({
  initialize(changes, review, beside) {
    Object.assign(this, { changes, review, beside });
    this.rows = [];
    this.chosen = -1;
  },

  onAdd(map) {
    this._canvas = L.DomUtil.create("canvas", "leaflet-zoom-animated", map.getPane("outlines"));
    this.draw();
  },

  onRemove() {
    this._canvas.remove();
  },

  getEvents() {
    return { moveend: this.draw, viewreset: this.draw, resize: this.draw, zoomanim: this._zoom };
  },

  // While the map zooms, the canvas follows as a picture.
  _zoom(event) {
    const scale = this._map.getZoomScale(event.zoom, this._zoomDrawn);
    const offset = this._map._latLngBoundsToNewLayerBounds(
      this._boundsDrawn, event.zoom, event.center).min;
    L.DomUtil.setTransform(this._canvas, offset, scale);
  },

  draw() {
    const map = this._map;
    if (!map) return;
    const size = map.getSize();
    const sharp = window.devicePixelRatio || 1;
    const corner = map.containerPointToLayerPoint([0, 0]);
    L.DomUtil.setPosition(this._canvas, corner);
    this._canvas.width = size.x * sharp;
    this._canvas.height = size.y * sharp;
    this._canvas.style.width = `${size.x}px`;
    this._canvas.style.height = `${size.y}px`;
    this._zoomDrawn = map.getZoom();
    this._boundsDrawn = map.getBounds();
    const scale = map.getZoomScale(this._zoomDrawn, 0);
    const origin = map.containerPointToLatLng([0, 0]);
    const context = this._canvas.getContext("2d");
    context.setTransform(sharp * scale, 0, 0, sharp * scale,
                         -origin.lng * scale * sharp, origin.lat * scale * sharp);
    const view = [origin.lng, -origin.lat, origin.lng + size.x / scale,
                  -origin.lat + size.y / scale];
    drawChanges(context, this.changes, this.rows, view, scale, (row) => this.review.of(row),
                this.chosen);
    this.beside.draw(context, scale);
    if (this.chosen >= 0) this._highlight(context, scale);
  },

  _highlight(context, scale) {
    const path = this.changes.path(this.chosen);
    context.setLineDash([]);
    for (const [width, colour] of [[7, "#000"], [4.5, "#fff"], [2, this._colour(this.chosen)]]) {
      context.lineWidth = width / scale;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  },

  _colour(row) {
    return this.changes.kindOf(row).colour;
  },

  // The smallest change at a place, in pixels of the map; -1: none.
  at(place) {
    const reach = REACH / this._map.getZoomScale(this._map.getZoom(), 0);
    const context = this._canvas.getContext("2d");
    // In the numbers of the table: with many changes this runs at every move of the pointer.
    const { bounds: { left, top, right, bottom }, area, quantum } = this.changes;
    const [near, far] = [place.x - reach, place.x + reach].map((value) => value / quantum);
    const [over, under] = [place.y - reach, place.y + reach].map((value) => value / quantum);
    let found = -1;
    let least = Infinity;
    for (const row of this.rows) {
      if (left[row] > far || right[row] < near || top[row] > under || bottom[row] < over) continue;
      if (area[row] >= least) continue;
      if (this._hit(context, row, place, reach)) [found, least] = [row, area[row]];
    }
    return found;
  },

  _hit(context, row, place, reach) {
    const path = this.changes.path(row);
    context.save();
    context.resetTransform();
    context.lineWidth = 2 * reach;
    const hit = context.isPointInPath(path, place.x, place.y, "evenodd")
      || context.isPointInStroke(path, place.x, place.y);
    context.restore();
    return hit;
  },
});

// Draws the rows that touch a view (left, top, right, bottom) on a context in map pixels,
// without one that is drawn otherwise.
function drawChanges(context, changes, rows, view, scale, verdictOf, skipped = -1) {
  const spot = SMALLEST / scale;
  const { left, top, right, bottom } = changes.bounds;
  const q = changes.quantum;
  context.lineJoin = "round";
  for (const row of rows) {
    if (row === skipped) continue;
    const l = left[row] * q;
    const t = top[row] * q;
    const r = right[row] * q;
    const b = bottom[row] * q;
    if (r < view[0] || l > view[2] || b < view[1] || t > view[3]) continue;
    context.fillStyle = changes.kindOf(row).colour;
    if (r - l < spot && b - t < spot) {
      context.fillRect((l + r - spot) / 2, (t + b - spot) / 2, spot, spot);
      continue;
    }
    outline(context, changes.path(row), changes.kindOf(row).colour, scale,
            verdictOf(row).verdict === "rejected");
  }
}

function outline(context, path, colour, scale, rejected) {
  context.globalAlpha = rejected ? 0 : 0.12;
  context.fillStyle = colour;
  context.fill(path, "evenodd");
  context.globalAlpha = rejected ? 0.6 : 1;
  context.setLineDash(rejected ? [4 / scale, 4 / scale] : []);
  for (const [width, stroke] of [[3.5, CASING], [2, colour]]) {
    context.lineWidth = width / scale;
    context.strokeStyle = stroke;
    context.stroke(path);
  }
  context.globalAlpha = 1;
}
