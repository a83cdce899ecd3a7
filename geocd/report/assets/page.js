// The page: filters, the chosen change, verdicts, keys, print.

const PRINTED = 40; // Changes on paper.
const by = (id) => document.getElementById(id);

class Report {
  constructor(facts, changes) {
    Object.assign(this, { facts, changes });
    this.review = new Review(facts, changes);
    this.pictures = new Pictures(facts, changes);
    this.map = makeMap(facts, this.pictures);
    this.swipe = new Swipe(this.map);
    this.beside = new Beside(facts);
    this.outlines = new Outlines(changes, this.review, this.beside).addTo(this.map);
    this.list = new List(changes, this.review, this.pictures, (row) => this.choose(row));
    this.details = [];
    this.chosen = -1;
    by("date-before").textContent = `Before: ${facts.before}`;
    by("date-after").textContent = `After: ${facts.after}`;
    this.listen();
    this.filter();
    this.tell();
  }

  listen() {
    for (const input of document.querySelectorAll(".controls input, .controls select")) {
      input.addEventListener("input", () => this.filter());
    }
    for (const input of document.querySelectorAll("[name=layer]")) {
      input.addEventListener("input", () => this.show(input.value, input.checked));
    }
    this.map.on("click", (event) => this.choose(this.outlines.at(this.place(event)), false));
    this.map.on("mousemove", (event) => this.hover(event));
    this.map.on("mouseout", () => (by("position").textContent = ""));
    by("previous").addEventListener("click", () => this.step(-1));
    by("next").addEventListener("click", () => this.step(1));
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => this.judge(button.dataset.verdict));
    }
    by("note").addEventListener("input", (event) => {
      this.review.annotate(this.chosen, event.target.value);
      this.tell();
    });
    by("export").addEventListener("click", () => this.review.download());
    by("clear").addEventListener("click", () => this.clear());
    document.addEventListener("keydown", (event) => this.key(event));
    const paper = window.matchMedia("print");
    paper.addEventListener("change", () => paper.matches && this.print());
    window.addEventListener("beforeprint", () => this.print());
  }

  // Shows or hides a layer beside the changes.
  show(name, shown) {
    if (shown) this.beside.hidden.delete(name);
    else this.beside.hidden.add(name);
    if (name === "not_observed") this.map.getPane("veil").style.display = shown ? "" : "none";
    this.outlines.draw();
  }

  place(event) {
    return { x: event.latlng.lng, y: -event.latlng.lat };
  }

  hover(event) {
    const { x, y } = this.place(event);
    const [a, b, c, d, e, f] = this.facts.transform;
    const digits = this.facts.degrees ? 6 : 1;
    by("position").textContent =
      [a * x + b * y + c, d * x + e * y + f].map((value) => value.toFixed(digits)).join("  ");
    const over = this.outlines.at({ x, y }) >= 0;
    this.map.getContainer().classList.toggle("over-change", over);
  }

  filter() {
    const kinds = new Set([...document.querySelectorAll("[name=kind]:checked")]
      .map((box) => Number(box.value)));
    const least = Number(by("score").value);
    const wanted = by("verdict-filter").value;
    by("least-score").textContent = least.toFixed(2);
    const { kind, score, area, count } = this.changes;
    const rows = [];
    for (let row = 0; row < count; row++) {
      if (!kinds.has(kind[row]) || (least > 0 && !(score[row] >= least))) continue;
      const { verdict } = this.review.of(row);
      if (wanted === "" || (verdict || "none") === wanted) rows.push(row);
    }
    const key = by("sort").value === "score" ? score : area;
    rows.sort((first, second) => key[second] - key[first] || first - second);
    this.outlines.rows = rows;
    this.outlines.draw();
    this.list.show(rows);
    by("count").textContent = `${plain.format(rows.length)} of ${plain.format(count)} shown`;
  }

  // Highlights a change; from the list the map goes there.
  choose(row, zoom = true) {
    this.chosen = row;
    this.list.select(row);
    this.outlines.chosen = row;
    by("hint").hidden = row >= 0;
    by("selected-body").hidden = row < 0;
    if (row >= 0) this.describe(row);
    for (const overlay of this.details) overlay.remove();
    this.details = row >= 0 ? this.sharpen(row) : [];
    if (row >= 0 && zoom) {
      const [x, y, side] = this.changes.window(row);
      this.map.fitBounds(boxBounds([x, y, x + side, y + side]), { maxZoom: 3, animate: false });
    }
    this.outlines.draw();
  }

  // Lays the sharper pictures of a change over the map.
  sharpen(row) {
    const sharp = this.pictures.sharp[row];
    if (!sharp) return [];
    const [x, y, side] = this.changes.window(row);
    return DATES.map((date) => {
      const address = URL.createObjectURL(sharp[date]);
      const overlay = L.imageOverlay(address, boxBounds([x, y, x + side, y + side]), { pane: date });
      overlay.on("remove", () => URL.revokeObjectURL(address));
      return overlay.addTo(this.map);
    });
  }

  describe(row) {
    by("selected-title").textContent = this.changes.title(row);
    const lines = [["id", String(this.changes.id[row])], ["area", this.changes.size(row)],
                   ["mean score", this.changes.score[row]?.toFixed(3) ?? "none"]];
    for (const { name, values } of this.changes.attributes) {
      if (values[row] !== null) lines.push(attributeText(name, values[row]));
    }
    by("attributes").replaceChildren(...lines.flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, value)]));
    for (const date of DATES) {
      by(`caption-${date}`).textContent = `${capital(date)}: ${this.facts[date]}`;
      this.pictures.paint(by(`selected-${date}`), date, row);
    }
    this.showVerdict(row);
  }

  showVerdict(row) {
    const { verdict, note } = this.review.of(row);
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", button.dataset.verdict === verdict);
    }
    const field = by("note");
    if (field !== document.activeElement) field.value = note;
    field.disabled = !verdict;
    field.placeholder = verdict ? "" : "after a verdict";
  }

  judge(verdict) {
    if (this.chosen < 0) return;
    this.review.mark(this.chosen, verdict);
    this.showVerdict(this.chosen);
    this.list.refresh(this.chosen);
    this.outlines.draw();
    this.tell();
  }

  clear() {
    const count = this.review.verdicts.size;
    if (!count || !window.confirm(`Clear ${count} verdicts? Export them first to keep them.`)) return;
    this.review.clear();
    if (this.chosen >= 0) this.showVerdict(this.chosen);
    this.filter();
    this.tell();
  }

  tell() {
    const { accepted, rejected, unsure } = this.review.summary();
    const reviewed = accepted + rejected + unsure;
    let text = `${plain.format(reviewed)} of ${plain.format(this.changes.count)} changes reviewed: `
      + `${accepted} accepted, ${rejected} rejected, ${unsure} unsure.`;
    if (accepted + rejected > 0) {
      const [share, low, high] = wilson(accepted, accepted + rejected)
        .map((value) => (100 * value).toFixed(0));
      text += ` Precision so far ${share} % (95 % interval ${low} to ${high} %).`;
    }
    by("progress").textContent = text;
    by("export").disabled = by("clear").disabled = reviewed === 0;
    by("trouble").hidden = this.review.kept;
    by("trouble").textContent =
      "This browser keeps nothing for this page: export the verdicts before you close it.";
  }

  step(by) {
    const { rows, places } = this.list;
    if (!rows.length) return;
    const place = places.get(this.chosen);
    const next = place === undefined ? (by > 0 ? 0 : rows.length - 1) : place + by;
    this.choose(rows[Math.min(rows.length - 1, Math.max(0, next))]);
  }

  key(event) {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select")) return;
    const verdicts = { a: "accepted", r: "rejected", u: "unsure" };
    const steps = { j: 1, k: -1 };
    // Arrows move the map when the map has the focus.
    if (!target.closest("#map")) Object.assign(steps, { ArrowDown: 1, ArrowUp: -1 });
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in verdicts) this.judge(verdicts[key]);
    else if (key in steps) this.step(steps[key]);
    else return;
    event.preventDefault();
  }

  // Paper cannot be swiped: both dates side by side, and the first changes of the list.
  async print() {
    const { width, height } = this.facts;
    for (const date of DATES) {
      const image = by(`plate-${date}`);
      image.src = this.pictures.address(date);
      by(`plate-caption-${date}`).textContent = `${capital(date)}: ${this.facts[date]}`;
      const canvas = image.nextElementSibling;
      const scale = 1400 / Math.max(this.facts.overview.width, this.facts.overview.height);
      canvas.width = this.facts.overview.width * scale;
      canvas.height = this.facts.overview.height * scale;
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      drawChanges(context, this.changes, this.list.rows, [0, 0, width, height], scale,
                  (row) => this.review.of(row));
      this.beside.draw(context, scale);
    }
    const rows = this.list.rows.slice(0, PRINTED);
    by("print-title").textContent = rows.length
      ? `First ${rows.length} of ${plain.format(this.list.rows.length)} changes by ${by("sort").value}`
      : "No change was found";
    by("print-list").replaceChildren(...rows.map((row) => this.printed(row)));
  }

  printed(row) {
    const canvases = DATES.map(() => element("canvas"));
    DATES.forEach((date, i) => this.pictures.paint(canvases[i], date, row));
    const { verdict } = this.review.of(row);
    const more = `${this.changes.size(row)}, ${this.changes.scoreText(row)}`;
    return element("div", { class: "print-row" }, ...canvases,
      element("div", {}, element("p", {}, element("strong", {}, this.changes.title(row))),
              element("p", {}, more), element("p", {}, verdict)));
  }
}

async function start() {
  try {
    const [facts, table] = await Promise.all([unpack("facts"), unpack("table")]);
    const report = new Report(facts, new Changes(table));
    // For scripts that drive the page.
    window.geocdReport = report;
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    by("trouble").hidden = false;
    by("trouble").textContent = `This browser cannot show the map and the list (${error.message}).`
      + " It needs one of 2023 or later.";
    throw error;
  }
}

start();
