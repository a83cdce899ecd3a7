// The list of changes: only the rows in view exist, so a hundred thousand cost nothing.

const ROW = 88;
const SPARE = 4; // Rows kept above and below the view.

class List {
  constructor(changes, review, pictures, choose) {
    Object.assign(this, { changes, review, pictures, choose });
    this.box = document.getElementById("list");
    this.sizer = element("div", { class: "sizer", role: "presentation" });
    this.box.append(this.sizer);
    this.rows = [];
    this.chosen = -1;
    this.shown = new Map();
    this.box.addEventListener("scroll", () => this.render(), { passive: true });
    this.box.addEventListener("click", (event) => {
      const item = event.target.closest(".row");
      if (item) this.choose(Number(item.dataset.row));
    });
    new ResizeObserver(() => this.render()).observe(this.box);
  }

  show(rows) {
    this.rows = rows;
    this.places = new Map(rows.map((row, place) => [row, place]));
    this.sizer.style.height = `${rows.length * ROW}px`;
    this.sizer.replaceChildren();
    this.shown.clear();
    if (!rows.length) {
      const words = this.changes.count ? "No change passes the filters." : "No change was found.";
      this.sizer.append(element("p", { class: "empty" }, words));
      return;
    }
    this.render();
  }

  render() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - SPARE);
    const last = Math.min(this.rows.length,
                          Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + SPARE);
    for (const [place, item] of this.shown) {
      if (place < first || place >= last) {
        item.remove();
        this.shown.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (!this.shown.has(place)) this.add(place);
    }
  }

  add(place) {
    const row = this.rows[place];
    const canvases = DATES.map(() => element("canvas", { "aria-hidden": "true" }));
    const item = element("div", {
      class: "row", role: "option", id: `change-${row}`, "data-row": row,
      "aria-setsize": this.rows.length, "aria-posinset": place + 1,
      "aria-selected": row === this.chosen,
    }, ...canvases, this.words(row), this.badge(row));
    item.style.top = `${place * ROW}px`;
    item.style.height = `${ROW}px`;
    this.sizer.append(item);
    this.shown.set(place, item);
    DATES.forEach((date, i) => this.pictures.paint(canvases[i], date, row));
  }

  words(row) {
    const box = element("span", { class: "swatch-box" });
    box.style.background = this.changes.kindOf(row).colour;
    return element("div", { class: "words" },
      element("div", { class: "what" }, box, this.changes.title(row)),
      element("div", { class: "more" }, this.changes.size(row)),
      element("div", { class: "more" }, this.changes.scoreText(row)));
  }

  badge(row) {
    const { verdict } = this.review.of(row);
    return element("span", { class: `badge ${verdict}` }, verdict);
  }

  // Shows anew what is known of one change, if its row is in view.
  refresh(row) {
    const item = this.shown.get(this.places.get(row));
    if (!item) return;
    item.setAttribute("aria-selected", row === this.chosen);
    item.lastChild.replaceWith(this.badge(row));
  }

  select(row) {
    const old = this.chosen;
    this.chosen = row;
    this.refresh(old);
    const place = this.places.get(row);
    if (place === undefined) {
      this.box.removeAttribute("aria-activedescendant");
      return;
    }
    const top = place * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    const over = top + ROW - this.box.clientHeight;
    if (over > this.box.scrollTop) this.box.scrollTop = over;
    this.render();
    this.refresh(row);
    this.box.setAttribute("aria-activedescendant", `change-${row}`);
  }
}
