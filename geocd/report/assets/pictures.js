// Pictures of both dates: overviews of everything, sharper squares of some changes.

const DATES = ["before", "after"];

class Pictures {
  constructor(facts, changes) {
    this.facts = facts;
    this.changes = changes;
    const bytes = bytesOf("images");
    let offset = 0;
    const cut = (length) => bytes.subarray(offset, (offset += length));
    this.whole = Object.fromEntries(
      DATES.map((date, i) => [date, this.blob(cut(facts.overview.bytes[i]))]));
    this.sharp = facts.sharp.map(([first, second]) =>
      first ? { before: this.blob(cut(first)), after: this.blob(cut(second)) } : null);
    this.addresses = Object.fromEntries(
      DATES.map((date) => [date, URL.createObjectURL(this.whole[date])]));
    this.loaded = new Map();
  }

  blob(bytes) {
    return new Blob([bytes], { type: this.facts.type });
  }

  address(date) {
    return this.addresses[date];
  }

  // A drawable picture; sharp ones are kept while few.
  picture(date, row) {
    const sharp = row !== null && this.sharp[row] ? this.sharp[row] : null;
    const key = sharp ? `${date}:${row}` : date;
    if (!this.loaded.has(key)) {
      if (this.loaded.size > 400) {
        for (const old of this.loaded.keys()) if (old.includes(":")) this.loaded.delete(old);
      }
      this.loaded.set(key, createImageBitmap(sharp ? sharp[date] : this.whole[date]));
    }
    return this.loaded.get(key);
  }

  // Paints one date of a change on a canvas, outline on top.
  async paint(canvas, date, row) {
    const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)) || 128;
    canvas.dataset.shown = `${date}:${row}`;
    const picture = await this.picture(date, row);
    if (canvas.dataset.shown !== `${date}:${row}`) return;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const [x, y, span] = this.changes.window(row);
    context.imageSmoothingQuality = "high";
    if (this.sharp[row]) {
      context.drawImage(picture, 0, 0, side, side);
    } else {
      const scale = this.facts.overview.width / picture.width;
      context.drawImage(picture, x / scale, y / scale, span / scale, span / scale,
                        0, 0, side, side);
    }
    const scale = side / span;
    context.setTransform(scale, 0, 0, scale, -x * scale, -y * scale);
    const path = this.changes.path(row);
    const wide = Math.max(1, side / 100);
    for (const [width, colour] of [[2.6 * wide, CASING],
                                   [1.4 * wide, this.changes.kindOf(row).colour]]) {
      context.lineWidth = width / scale;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }
}
