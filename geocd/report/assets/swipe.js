// The map: both dates on top of each other, before cut off at the swipe.

const KEY_STEP = 2; // Per cent that an arrow key moves the swipe.

// Pixels of the map count down, latitudes count up.
const corner = (x, y) => L.latLng(-y, x);
const boxBounds = ([left, top, right, bottom]) =>
  L.latLngBounds(corner(left, bottom), corner(right, top));

function makeMap(facts, pictures) {
  const crs = L.extend({}, L.CRS.Simple, {
    distance: (a, b) => L.CRS.Simple.distance(a, b) / (facts.metre ?? 1),
  });
  const map = L.map("map", {
    crs, attributionControl: false, zoomControl: true, zoomSnap: 0.25, zoomDelta: 1,
    wheelPxPerZoomLevel: 90, minZoom: -10, maxZoom: 4, keyboardPanDelta: 80,
  });
  for (const [name, level] of [["after", 210], ["before", 220], ["veil", 300], ["outlines", 410]]) {
    map.createPane(name).style.zIndex = level;
  }
  map.getPane("outlines").style.pointerEvents = "none";
  const { width, height } = facts.overview;
  const whole = boxBounds([0, 0, width, height]);
  for (const date of ["before", "after"]) {
    L.imageOverlay(pictures.address(date), whole, { pane: date, alt: `Image ${date}` }).addTo(map);
  }
  if (facts.veil) {
    L.imageOverlay(facts.veil.address, boxBounds(facts.veil.corners), { pane: "veil" }).addTo(map);
  }
  if (facts.metre !== null) L.control.scale({ imperial: false }).addTo(map);
  const frame = boxBounds([0, 0, facts.width, facts.height]);
  map.setMaxBounds(frame.pad(0.5));
  map.fitBounds(frame);
  map.setMinZoom(map.getZoom() - 1);
  map.on("zoomend", () => {
    const large = map.getZoom() > 1;
    for (const date of ["before", "after"]) {
      map.getPane(date).classList.toggle("pixelated", large);
    }
  });
  return map;
}

// The slider over the map: a share of its width, by pointer or arrow keys.
class Swipe {
  constructor(map) {
    this.map = map;
    this.handle = document.getElementById("swipe");
    this.share = 0.5;
    this.handle.addEventListener("pointerdown", (event) => this.grab(event));
    this.handle.addEventListener("keydown", (event) => this.key(event));
    map.on("move zoom zoomend resize viewreset", () => this.cut());
    this.cut();
  }

  grab(event) {
    event.preventDefault();
    this.handle.focus({ preventScroll: true });
    this.handle.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const frame = this.map.getContainer().getBoundingClientRect();
      this.to((moved.clientX - frame.left) / frame.width);
    };
    const stop = () => this.handle.removeEventListener("pointermove", move);
    this.handle.addEventListener("pointermove", move);
    this.handle.addEventListener("lostpointercapture", stop, { once: true });
  }

  key(event) {
    const steps = { ArrowLeft: -KEY_STEP, ArrowDown: -KEY_STEP, ArrowRight: KEY_STEP,
                    ArrowUp: KEY_STEP, PageDown: -10, PageUp: 10 };
    if (event.key in steps) this.to(this.share + steps[event.key] / 100);
    else if (event.key === "Home") this.to(0);
    else if (event.key === "End") this.to(1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  to(share) {
    this.share = Math.min(1, Math.max(0, share));
    this.cut();
  }

  cut() {
    const size = this.map.getSize();
    const [near, far] = [[0, 0], [size.x * this.share, size.y]].map(
      (point) => this.map.containerPointToLayerPoint(point));
    const edge = [[near.x, near.y], [far.x, near.y], [far.x, far.y], [near.x, far.y]]
      .map(([x, y]) => `${x}px ${y}px`).join(", ");
    this.map.getPane("before").style.clipPath = `polygon(${edge})`;
    this.handle.style.left = `${this.share * 100}%`;
    const per = Math.round(this.share * 100);
    this.handle.setAttribute("aria-valuenow", per);
    this.handle.setAttribute("aria-valuetext", `${per} % before`);
  }
}
