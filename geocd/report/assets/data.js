// What the page carries: facts and the table of changes (compressed JSON), pictures (bytes).

function bytesOf(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpack(id) {
  const packed = new Blob([bytesOf(id)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).json();
}

// The numbers of each kind of thing, spelled for people.
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

function areaText(value, unit) {
  if (unit === "px") return `${plain.format(value)} px`;
  if (value >= 1e6) return `${fine.format(value / 1e6)} km²`;
  if (value >= 1e4) return `${fine.format(value / 1e4)} ha`;
  return `${plain.format(value)} m²`;
}

// An attribute of a change by its column, such as length_m, in words and with its unit.
const UNITS = { m: "m", m2: "m²", px: "px", deg: "°" };

function attributeText(name, value) {
  const unit = name.match(/_(m|m2|px|deg)$/)?.[1];
  const words = (unit ? name.slice(0, -unit.length - 1) : name).replaceAll("_", " ");
  if (name === "orientation") return [words, `${plain.format(value)}°`];
  if (name === "observed") return [words, `${fine.format(100 * value)} %`];
  const text = typeof value === "number" && unit ? fine.format(value) : String(value);
  return [words, unit ? `${text} ${UNITS[unit]}` : text];
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// An element with attributes and children; text is always text, never markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The changes, by row; rows are ordered by area.
class Changes {
  constructor(table) {
    Object.assign(this, table);
    this.paths = new Map();
  }

  kindOf(row) {
    return this.kinds[this.kind[row]];
  }

  // Ids may be long; the place by area is what a reader can say aloud.
  title(row) {
    return `${capital(this.kindOf(row).name)} ${row + 1}`;
  }

  size(row) {
    return areaText(this.area[row], this.unit);
  }

  scoreText(row) {
    return this.score[row] === null ? "no score" : `score ${this.score[row].toFixed(2)}`;
  }

  // Left, top, right and bottom in pixels of the map.
  box(row) {
    const { left, top, right, bottom } = this.bounds;
    return [left[row], top[row], right[row], bottom[row]].map((value) => value * this.quantum);
  }

  // The outline in pixels of the map; the box of a change whose outline had no room.
  path(row) {
    let path = this.paths.get(row);
    if (path === undefined) {
      path = this.drawn(row);
      this.paths.set(row, path);
    }
    return path;
  }

  drawn(row) {
    const path = new Path2D();
    if (this.rings === null) {
      const [left, top, right, bottom] = this.box(row);
      path.rect(left, top, right - left, bottom - top);
      return path;
    }
    for (const ring of this.rings[row]) {
      let x = 0;
      let y = 0;
      for (let i = 0; i < ring.length; i += 2) {
        x += ring[i] * this.quantum;
        y += ring[i + 1] * this.quantum;
        if (i === 0) path.moveTo(x, y);
        else path.lineTo(x, y);
      }
      path.closePath();
    }
    return path;
  }

  // Column, row and side of the square in which a change is shown.
  window(row) {
    return this.windows.slice(3 * row, 3 * row + 3);
  }
}
